//! What selects a kernel.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use elgen_shaders::{ExpandError, Symbols, expand, expand_text};

use crate::device::Device;
use crate::kernel::HostFunction;
use crate::tensor::DType;

/// Symbols of a specification at most.
const MAX_SYMBOLS: usize = 10;

/// Override constants of a specification at most.
const MAX_CONSTANTS: usize = 6;

static NEXT_SOURCE: AtomicUsize = AtomicUsize::new(1);

/// A WGSL kernel that this workspace does not own. It may use the directives and include files of `elgen_shaders`; it is always compiled
/// with bounds checks and loop bounds, and [`crate::Recorder::dispatch`] takes it.
///
/// Make it once and clone it: each device compiles and keeps the permutations of each source.
#[derive(Clone, Debug)]
pub struct KernelSource {
    inner: Arc<OutsideSource>,
}

#[derive(Debug)]
struct OutsideSource {
    id: usize,
    name: String,
    text: String,
}

impl KernelSource {
    /// A kernel whose entry point is `main`. `name` stands in messages.
    pub fn new(name: impl Into<String>, wgsl: impl Into<String>) -> Self {
        let id = NEXT_SOURCE.fetch_add(1, Ordering::Relaxed);
        Self { inner: Arc::new(OutsideSource { id, name: name.into(), text: wgsl.into() }) }
    }
}

/// Where the text of a kernel comes from.
#[derive(Clone, Debug)]
enum Source {
    /// A shader of `elgen_shaders`.
    Own(&'static str),
    Outside(KernelSource),
}

/// The value of a symbol.
#[derive(Clone, Copy, Debug)]
enum Value {
    Defined,
    Number(u32),
    Text(&'static &'static str),
}

/// A list of a few entries that lies where it is.
#[derive(Clone, Copy, Debug)]
struct Inline<T, const N: usize> {
    entries: [Option<T>; N],
    count: usize,
}

impl<T: Copy, const N: usize> Inline<T, N> {
    const fn new() -> Self {
        Self { entries: [None; N], count: 0 }
    }

    /// Whether there was room.
    fn push(&mut self, entry: T) -> bool {
        let place = self.entries.get_mut(self.count);
        let fits = place.is_some();
        if let Some(place) = place {
            *place = Some(entry);
            self.count += 1;
        }
        fits
    }

    fn iter(&self) -> impl Iterator<Item = T> + '_ {
        self.entries[..self.count].iter().flatten().copied()
    }
}

/// What selects a kernel: the shader, its symbols and its override constants, and the host function that stands beside the shader.
///
/// It is a value without memory of its own, told apart by the addresses of its names: a decode step makes one for each dispatch and finds
/// the compiled kernel by these numbers. Text is made only where a device sees a specification for the first time.
#[derive(Clone, Debug)]
pub struct KernelSpec {
    source: Source,
    symbols: Inline<(&'static str, Value), MAX_SYMBOLS>,
    constants: Inline<(&'static str, u32), MAX_CONSTANTS>,
    host: Option<HostFunction>,
    crowded: bool,
}

impl KernelSpec {
    /// The shader of `elgen_shaders` with this name, without symbols. Kernels of this workspace are trusted: they run without bounds checks
    /// unless the device is checked, and only [`crate::Recorder::dispatch_trusted`] takes them.
    #[inline]
    pub fn new(shader: &'static str) -> Self {
        Self::with(Source::Own(shader))
    }

    /// A kernel from outside, without symbols.
    #[inline]
    pub fn from_source(source: &KernelSource) -> Self {
        Self::with(Source::Outside(source.clone()))
    }

    #[inline]
    fn with(source: Source) -> Self {
        Self { source, symbols: Inline::new(), constants: Inline::new(), host: None, crowded: false }
    }

    /// Defines a symbol.
    #[must_use]
    #[inline]
    pub fn define(self, name: &'static str) -> Self {
        self.symbol(name, Value::Defined)
    }

    /// Defines a symbol if `condition` holds.
    #[must_use]
    #[inline]
    pub fn define_if(self, condition: bool, name: &'static str) -> Self {
        if condition { self.define(name) } else { self }
    }

    /// Gives a symbol a number.
    #[must_use]
    #[inline]
    pub fn set(self, name: &'static str, value: u32) -> Self {
        self.symbol(name, Value::Number(value))
    }

    /// Gives a symbol a word.
    #[must_use]
    #[inline]
    pub fn set_text(self, name: &'static str, value: &'static &'static str) -> Self {
        self.symbol(name, Value::Text(value))
    }

    /// Sets an override constant.
    #[must_use]
    #[inline]
    pub fn constant(mut self, name: &'static str, value: u32) -> Self {
        self.crowded |= !self.constants.push((name, value));
        self
    }

    /// The host function over the same bindings and parameters.
    #[must_use]
    #[inline]
    pub fn host(mut self, function: HostFunction) -> Self {
        self.host = Some(function);
        self
    }

    /// Chooses how weights or caches of this dtype are read: `STORE_F32`, `STORE_F16` or, without SHADER_F16, `STORE_F16_PACKED`.
    #[must_use]
    #[inline]
    pub fn storage(self, device: &Device, dtype: DType) -> Self {
        self.define(match dtype {
            DType::F32 => "STORE_F32",
            DType::F16 if device.inner.capabilities.shader_f16 => "STORE_F16",
            DType::F16 => "STORE_F16_PACKED",
        })
    }

    /// Uses subgroups where the device has them (shaders with a `SUBGROUP` twin).
    #[must_use]
    #[inline]
    pub fn subgroup(self, device: &Device) -> Self {
        self.define_if(device.inner.capabilities.subgroup, "SUBGROUP")
    }

    #[inline]
    fn symbol(mut self, name: &'static str, value: Value) -> Self {
        self.crowded |= !self.symbols.push((name, value));
        self
    }

    /// The name of the shader.
    pub(super) fn shader(&self) -> &str {
        match &self.source {
            Source::Own(name) => name,
            Source::Outside(source) => &source.inner.name,
        }
    }

    /// Whether the shader is one of this workspace.
    pub(super) fn is_own(&self) -> bool {
        matches!(self.source, Source::Own(_))
    }

    pub(super) fn host_function(&self) -> Option<HostFunction> {
        self.host
    }

    /// What is wrong with it, if anything.
    pub(super) fn fault(&self) -> Option<String> {
        self.crowded.then(|| format!("more than {MAX_SYMBOLS} symbols or {MAX_CONSTANTS} constants"))
    }

    pub(super) fn constants(&self) -> impl Iterator<Item = (&'static str, u32)> + '_ {
        self.constants.iter()
    }

    /// The symbols as the expander takes them.
    pub(super) fn expander_symbols(&self, immediates: bool) -> Symbols {
        let mut symbols = Symbols::new();
        for (name, value) in self.symbols.iter() {
            match value {
                Value::Defined => symbols.define(name),
                Value::Number(number) => symbols.set(name, number),
                Value::Text(text) => symbols.set(name, *text),
            };
        }
        if immediates {
            symbols.define("IMMEDIATES");
        }
        symbols
    }

    /// All that selects it, as text.
    pub(super) fn describe(&self, symbols: &Symbols) -> String {
        let constants: Vec<String> = self.constants().map(|(name, value)| format!("{name}={value}")).collect();
        let source = match &self.source {
            Source::Own(name) => (*name).to_owned(),
            Source::Outside(source) => format!("{} (source {})", source.inner.name, source.inner.id),
        };
        format!("{source} [{}] {}", symbols.describe(), constants.join(" "))
    }

    /// The WGSL of this permutation.
    pub(super) fn expand(&self, symbols: &Symbols) -> Result<String, ExpandError> {
        match &self.source {
            Source::Own(name) => expand(name, symbols),
            Source::Outside(source) => expand_text(&source.inner.name, &source.inner.text, symbols),
        }
    }

    /// The numbers that tell specifications apart. Equal numbers mean equal text: a name that never changes lies at its address.
    pub(super) fn key(&self) -> SpecKey {
        let mut key = SpecKey { words: [[0; 2]; 1 + MAX_SYMBOLS + MAX_CONSTANTS], count: 0 };
        let host = self.host.map_or(0, |function| function as usize as u64);
        key.push(match &self.source {
            Source::Own(name) => [place(name), host],
            Source::Outside(source) => [OUTSIDE | source.inner.id as u64, host],
        });
        for (name, value) in self.symbols.iter() {
            let value = match value {
                Value::Defined => DEFINED,
                Value::Number(number) => u64::from(number),
                Value::Text(text) => TEXT | std::ptr::from_ref(text) as usize as u64,
            };
            key.push([place(name), value]);
        }
        for (name, value) in self.constants.iter() {
            key.push([place(name), CONSTANT | u64::from(value)]);
        }
        key
    }
}

// What a number stands for, above what addresses and numbers of 32 bits reach.
const OUTSIDE: u64 = 1 << 63;
const DEFINED: u64 = 1 << 62;
const TEXT: u64 = 1 << 61;
const CONSTANT: u64 = 1 << 60;

/// Where a name lies and how long it is: addresses are below 2^56, names below 128 bytes.
fn place(name: &'static str) -> u64 {
    (name.as_ptr() as usize as u64) ^ ((name.len() as u64) << 56)
}

/// What tells specifications apart on a device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpecKey {
    words: [[u64; 2]; 1 + MAX_SYMBOLS + MAX_CONSTANTS],
    count: usize,
}

impl SpecKey {
    fn push(&mut self, words: [u64; 2]) {
        self.words[self.count] = words;
        self.count += 1;
    }

    fn used(&self) -> &[u64] {
        self.words[..self.count].as_flattened()
    }
}

impl PartialEq for SpecKey {
    fn eq(&self, other: &Self) -> bool {
        self.used() == other.used()
    }
}

impl Eq for SpecKey {}

impl Hash for SpecKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for word in self.used() {
            state.write_u64(*word);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifications_are_told_apart_by_all_that_selects_them() {
        let spec = || KernelSpec::new("linear").define("STAGED").set("TILE_M", 4).constant("WG", 64);
        assert_eq!(spec().key(), spec().key());
        let source = KernelSource::new("linear", "");
        let others = [
            KernelSpec::new("stream").define("STAGED").set("TILE_M", 4).constant("WG", 64),
            KernelSpec::new("linear").define("SUBGROUP").set("TILE_M", 4).constant("WG", 64),
            KernelSpec::new("linear").define("STAGED").set("TILE_M", 8).constant("WG", 64),
            KernelSpec::new("linear").define("STAGED").define("TILE_M").constant("WG", 64),
            KernelSpec::new("linear").define("STAGED").set_text("TILE_M", &"4").constant("WG", 64),
            KernelSpec::new("linear").define("STAGED").set("TILE_M", 4).constant("WG", 32),
            KernelSpec::new("linear").define("STAGED").set("TILE_M", 4).set("WG", 64),
            KernelSpec::new("linear").define("STAGED").set("TILE_M", 4),
            KernelSpec::from_source(&source).define("STAGED").set("TILE_M", 4).constant("WG", 64),
            KernelSpec::from_source(&KernelSource::new("linear", "")).define("STAGED"),
        ];
        for (i, other) in others.iter().enumerate() {
            assert_ne!(spec().key(), other.key(), "{i}");
            assert!(others[..i].iter().all(|earlier| earlier.key() != other.key()), "{i}");
        }
    }

    #[test]
    fn too_many_symbols_are_a_fault_not_a_panic() {
        let full = (0..MAX_SYMBOLS).fold(KernelSpec::new("linear"), |spec, _| spec.define("A"));
        assert_eq!(full.fault(), None);
        assert!(full.define("A").fault().is_some());
    }
}
