//! What a dispatch binds.

use std::sync::Arc;

use crate::table::{TableRef, Versions};
use crate::tensor::{Buffer, Tensor};

/// A buffer as a dispatch binds it.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    buffer: &'a Buffer,
    /// Of a table: what its contents are numbered by, and the number that was validated.
    table: Option<(&'a Arc<Versions>, u64)>,
}

impl<'a> Binding<'a> {
    pub(crate) fn buffer(&self) -> &'a Buffer {
        self.buffer
    }

    /// If its contents are indices that kernels take on trust, which contents were validated.
    pub(crate) fn table(&self) -> Option<(&'a Arc<Versions>, u64)> {
        self.table
    }

    /// A table that is bound as this.
    pub(crate) fn of_table(buffer: &'a Buffer, versions: &'a Arc<Versions>, version: u64) -> Self {
        Self { buffer, table: Some((versions, version)) }
    }
}

impl<'a> From<&'a Buffer> for Binding<'a> {
    fn from(buffer: &'a Buffer) -> Self {
        Self { buffer, table: None }
    }
}

impl<'a, E> From<TableRef<'a, E>> for Binding<'a> {
    fn from(table: TableRef<'a, E>) -> Self {
        Self::of_table(table.buffer, table.versions, table.version)
    }
}

impl<'a> From<&'a Tensor> for Binding<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        Self::from(&tensor.buffer)
    }
}

/// Bindings of a dispatch that has some only at times: a list without memory of its own.
#[derive(Clone, Copy, Debug)]
pub struct Bindings<'a> {
    /// The places behind `count` repeat the first one.
    list: [Binding<'a>; MAX_BINDINGS],
    count: usize,
}

/// Storage buffers of a kernel at most: what devices are asked for.
pub(crate) const MAX_BINDINGS: usize = 16;

impl<'a> Bindings<'a> {
    /// A list that begins with these.
    pub fn new<const N: usize>(first: [Binding<'a>; N]) -> Self {
        const { assert!(N > 0 && N <= MAX_BINDINGS) };
        let mut list = [first[0]; MAX_BINDINGS];
        list[..N].copy_from_slice(&first);
        Self { list, count: N }
    }

    /// With these behind.
    #[must_use]
    pub fn and(self, others: &[Binding<'a>]) -> Self {
        others.iter().fold(self, |list, binding| list.with(Some(*binding)))
    }

    /// With another one behind, if there is one. More than a kernel can have are left out, and the dispatch refuses their number.
    #[must_use]
    pub fn with(mut self, binding: Option<impl Into<Binding<'a>>>) -> Self {
        if let (Some(binding), Some(place)) = (binding, self.list.get_mut(self.count)) {
            *place = binding.into();
            self.count += 1;
        }
        self
    }
}

impl<'a> std::ops::Deref for Bindings<'a> {
    type Target = [Binding<'a>];

    fn deref(&self) -> &Self::Target {
        &self.list[..self.count]
    }
}

/// An array of [`Binding`]s, in the order of a shader's bindings.
#[macro_export]
macro_rules! bind {
    ($($buffer:expr),+ $(,)?) => {
        [$($crate::Binding::from($buffer)),+]
    };
}
