//! What the caches reserve, against el-attention's formulas, and that no two sentences ever share a slot.

use std::collections::HashSet;

use elgen_attention::{AttentionError, CacheBytes, CacheLayout, Caches, Kind, Kinds, Need, Placement, Shape};
use elgen_tensor::{Class, DType, Device, DeviceOptions, Range, Tensor, TensorError};
use proptest::prelude::*;

fn open(options: DeviceOptions) -> Device {
    let selector = std::env::var("ELGEN_TEST_DEVICE").ok();
    Device::open(&DeviceOptions { selector, checked: true, ..options })
        .unwrap_or_else(|e| panic!("cache tests need a Vulkan adapter: {e}"))
}

/// A device of which one binding holds 16 KiB.
fn small() -> Device {
    open(DeviceOptions { binding_limit: Some(16 << 10), ..DeviceOptions::default() })
}

const SHAPE: Shape = Shape::new(24, 3, 8, 0.35);

fn layout(kind: Kind, encoder: bool, layers: usize, dtype: DType) -> CacheLayout {
    let (cross_shape, format) = (encoder.then_some(SHAPE), dtype.into());
    CacheLayout { layers, kinds: Kinds::both(kind), self_shape: SHAPE, cross_shape, format }
}

/// Bytes of one sentence as docs/el-attention.md §1.5 counts them, from L, m, D, E and s alone. Prompt rows of a decoder are shared by its beams where the cross cache
/// is; the last generated token is never cached. mha-nocache keeps one encoder output in f32.
fn formula(kind: Kind, encoder: bool, layers: usize, dtype: DType, shape: Shape, need: &Need) -> CacheBytes {
    let (l, m, d, e, s) = (layers, need.width, shape.d_model, shape.num_heads * shape.head_dim, dtype.bytes() as usize);
    let generated = need.max_new.saturating_sub(1);
    let of_kinds = [
        (Kind::MHA_REPLICATED, (2 * l * m * e * s, 2 * l * m * e * s, 2 * l * m * e * s)),
        (Kind::MHA, (2 * l * e * s, 2 * l * m * e * s, 2 * l * e * s)),
        (Kind::MHA_NOCACHE, (2 * l * e * s, 2 * l * m * e * s, d * 4)),
        (Kind::EL, (l * d * s, l * m * d * s, d * s)),
    ];
    let (_, (per_prompt, per_generated, per_source)) = of_kinds.into_iter().find(|(of, _)| *of == kind).unwrap();
    CacheBytes {
        self_: (need.prompt_len * per_prompt + generated * per_generated) as u64,
        cross: if encoder { (need.source_len * per_source) as u64 } else { 0 },
    }
}

/// All slots that the rows of a sentence may ever write: (self, cross). A slot that two rows write must be a shared prompt's or source's.
fn slots_of(placement: &Placement, need: &Need, shared_self: bool, shared_cross: bool) -> (HashSet<u32>, HashSet<u32>) {
    let (mut own, mut cross) = (HashSet::new(), HashSet::new());
    for beam in 0..need.width as u32 {
        let row = placement.row(0, beam);
        assert_eq!(
            [row.beam, row.width, row.length, row.live],
            [beam, need.width as u32, need.prompt_len as u32, need.prompt_len as u32]
        );
        assert_eq!(row.owns_prompt == 1, beam == 0 || !shared_self);
        for position in 0..(need.prompt_len + need.max_new.saturating_sub(1)) as u32 {
            let fresh = own.insert(row.own_slot(position));
            let shared = shared_self && beam > 0 && position < row.prompt_len;
            assert_eq!(fresh, !shared, "beam {beam}, position {position} of {placement:?}");
        }
        let Range { first, count } = placement.cross_range(beam);
        assert_eq!(count as usize, need.source_len);
        for slot in first..first + count {
            assert_eq!(cross.insert(slot), !shared_cross || beam == 0, "beam {beam}, slot {slot} of {placement:?}");
        }
    }
    (own, cross)
}

fn buffers(caches: &Caches) -> impl Iterator<Item = &Tensor> {
    caches.slabs().iter().flat_map(|slab| slab.self_layers.iter().chain(&slab.cross))
}

/// The pool's cache bytes are the slabs', each buffer rounded up to 16 bytes (an empty one too).
fn check_pool(device: &Device, caches: &Caches) {
    let exact: u64 = buffers(caches).map(|t| (t.rows * t.ld()) as u64 * t.dtype.bytes()).sum();
    let rounded: u64 =
        buffers(caches).map(|t| ((t.rows * t.ld()) as u64 * t.dtype.bytes()).max(1).next_multiple_of(16)).sum();
    assert_eq!(caches.slab_bytes(), exact);
    assert_eq!(device.pool().current().of(Class::Cache), rounded);
    let limit = device.capabilities().max_binding_bytes;
    assert!(buffers(caches).all(|t| t.buffer.bytes() <= limit), "a buffer is larger than a binding");
}

fn need() -> impl Strategy<Value = Need> {
    (1..=5usize, 1..=9usize, 1..=4usize, 1..=20usize).prop_map(|(prompt_len, max_new, width, source_len)| Need {
        prompt_len,
        max_new,
        width,
        source_len,
    })
}

fn kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(Kind::BUILT_IN.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reserved_bytes_are_the_papers(
        kind in kind(), encoder in any::<bool>(), half in any::<bool>(), layers in 1..=6usize,
        heads in 1..=4usize, head_dim in prop::sample::select(vec![4usize, 8, 16]), d in prop::sample::select(vec![8usize, 24, 64]), need in need(),
    ) {
        let dtype = if half { DType::F16 } else { DType::F32 };
        let shape = Shape::new(d, heads, head_dim, 1.0);
        let layout = CacheLayout { self_shape: shape, cross_shape: encoder.then_some(shape), ..layout(kind, encoder, layers, dtype) };
        let need = Need { source_len: if encoder { need.source_len } else { 0 }, ..need };
        let (own, cross) = layout.slots(&need);
        let bytes = CacheBytes { self_: own * layout.self_slot_bytes(), cross: cross * layout.cross_slot_bytes() };
        prop_assert_eq!(bytes, formula(kind, encoder, layers, dtype, shape, &need));
    }

    #[test]
    fn live_sentences_never_share_a_slot(
        kind in kind(), encoder in any::<bool>(), half in any::<bool>(),
        prepared in prop::collection::vec(need(), 0..=6),
        // Admit this sentence, or release that one of the live ones.
        script in prop::collection::vec(prop_oneof![3 => need().prop_map(Ok), 2 => any::<prop::sample::Index>().prop_map(Err)], 1..=40),
    ) {
        static DEVICE: std::sync::OnceLock<Device> = std::sync::OnceLock::new();
        let device = DEVICE.get_or_init(small);
        let dtype = if half { DType::F16 } else { DType::F32 };
        let fix = |need: Need| Need { source_len: if encoder { need.source_len } else { 0 }, ..need };
        let layers = 2;
        let mut caches = Caches::new(device, layout(kind, encoder, layers, dtype));
        let prepared: Vec<Need> = prepared.into_iter().map(fix).collect();
        caches.prepare(&prepared).unwrap();
        let mut live: Vec<(Placement, Need, HashSet<u32>, HashSet<u32>)> = Vec::new();
        let shared = kind != Kind::MHA_REPLICATED;
        let mut expected = CacheBytes::default();
        for action in script {
            match action {
                Ok(need) => {
                    let need = fix(need);
                    let placement = caches.admit(need).unwrap();
                    let (own, cross) = slots_of(&placement, &need, shared, shared);
                    let slab = &caches.slabs()[placement.slab];
                    prop_assert!(own.iter().all(|s| (*s as usize) < slab.self_layers[0].rows), "a self slot lies behind its slab");
                    prop_assert!(cross.iter().all(|s| (*s as usize) < slab.cross[0].rows), "a cross slot lies behind its slab");
                    for (other, _, taken, taken_cross) in live.iter().filter(|l| l.0.slab == placement.slab) {
                        prop_assert!(own.is_disjoint(taken) && cross.is_disjoint(taken_cross), "{placement:?} overlaps {other:?}");
                    }
                    let bytes = formula(kind, encoder, layers, dtype, SHAPE, &need);
                    prop_assert_eq!(own.len() as u64 * caches.layout().self_slot_bytes(), bytes.self_, "slots that rows use");
                    prop_assert_eq!(cross.len() as u64 * caches.layout().cross_slot_bytes(), bytes.cross);
                    expected.self_ += bytes.self_;
                    expected.cross += bytes.cross;
                    live.push((placement, need, own, cross));
                }
                Err(index) if !live.is_empty() => {
                    let (placement, need, ..) = live.swap_remove(index.index(live.len()));
                    caches.release(placement);
                    let bytes = formula(kind, encoder, layers, dtype, SHAPE, &need);
                    expected.self_ -= bytes.self_;
                    expected.cross -= bytes.cross;
                }
                Err(_) => {}
            }
            prop_assert_eq!(caches.bytes(), expected);
            check_pool(device, &caches);
        }
        // All is given back: each slab is one free run again, which a sentence of its size proves.
        for (placement, ..) in live {
            caches.release(placement);
        }
        prop_assert_eq!(caches.bytes(), CacheBytes::default());
        let sizes: Vec<(usize, usize)> = caches.slabs().iter().map(|s| (s.self_layers[0].rows, s.cross.first().map_or(0, |t| t.rows))).collect();
        for (own, cross) in sizes.iter().copied().filter(|_| shared) {
            let whole = Need { prompt_len: own, max_new: 1, width: 1, source_len: cross };
            let placement = caches.admit(whole).unwrap();
            prop_assert_eq!(slots_of(&placement, &whole, true, true).0.len(), own);
        }
        prop_assert_eq!(caches.slabs().len(), sizes.len(), "nothing had to be added");
    }
}

fn batch(n: usize) -> Vec<Need> {
    (0..n).map(|i| Need { prompt_len: 1 + i % 3, max_new: 5 + i % 7, width: 3, source_len: 4 + 3 * i % 19 }).collect()
}

#[test]
fn a_prepared_batch_allocates_nothing_and_leaves_no_slack() {
    for kind in Kind::BUILT_IN {
        let device = small();
        let mut caches = Caches::new(&device, layout(kind, true, 3, DType::F32));
        let needs = batch(60);
        caches.prepare(&needs).unwrap();
        assert!(caches.slabs().len() > 2, "{kind}: {} slabs", caches.slabs().len());
        check_pool(&device, &caches);
        let allocations = device.pool().allocations();
        let mut placements: Vec<Placement> = needs.iter().map(|n| caches.admit(*n).unwrap()).collect();
        assert_eq!(device.pool().allocations(), allocations, "{kind}");
        assert!(placements.is_sorted_by_key(|p| p.slab), "{kind}: rows of a batch are dispatched slab by slab");
        let bytes = caches.bytes();
        assert_eq!(bytes.self_ + bytes.cross, caches.slab_bytes(), "{kind}: slabs hold exactly the batch");
        assert_eq!(caches.peak_bytes(), bytes);
        // The same batch in another order after a release of all, and a smaller one: nothing to allocate either.
        placements.drain(..).for_each(|p| caches.release(p));
        caches.prepare(&needs[..20]).unwrap();
        placements.extend(needs[..20].iter().map(|n| caches.admit(*n).unwrap()));
        assert_eq!(device.pool().allocations(), allocations, "{kind}");
        // While sentences are admitted their slabs stay.
        caches.prepare(&batch(100)).unwrap();
        assert_eq!(device.pool().allocations(), allocations, "{kind}");
        placements.drain(..).for_each(|p| caches.release(p));
        caches.prepare(&batch(100)).unwrap();
        let larger = device.pool().current().of(Class::Cache);
        assert_eq!(device.pool().peak().of(Class::Cache), larger, "{kind}: old slabs go before new ones come");
        check_pool(&device, &caches);
    }
}

#[test]
fn what_nocache_recomputes_of_a_slab_fits_a_binding() {
    let device = small();
    let mut caches = Caches::new(&device, layout(Kind::MHA_NOCACHE, true, 2, DType::F16));
    caches.prepare(&batch(60)).unwrap();
    for slab in caches.slabs() {
        let bytes = slab.cross[0].rows * 2 * SHAPE.inner() * 4;
        assert!(bytes as u64 <= device.capabilities().max_binding_bytes, "{bytes} bytes of keys and values");
    }
}

#[test]
fn a_sentence_larger_than_a_slab_names_sizes() {
    let device = small();
    // Decoder: 16 KiB hold 85 slots of keys and values, or 170 hidden states.
    for (kind, slot_bytes) in [(Kind::MHA, 2 * 24 * 4), (Kind::EL, 24 * 4)] {
        let fitting = (16 << 10) / slot_bytes;
        let mut caches = Caches::new(&device, layout(kind, false, 2, DType::F32));
        let need = |prompt_len: usize| Need { prompt_len, max_new: 1, width: 1, source_len: 0 };
        let placement = caches.admit(need(fitting)).unwrap();
        caches.release(placement);
        for error in
            [caches.admit(need(fitting + 1)).unwrap_err(), caches.prepare(&[need(1), need(fitting + 1)]).unwrap_err()]
        {
            let AttentionError::SentenceTooLarge { positions, asked, limit } = &error else { panic!("{error}") };
            assert_eq!(
                (*positions, *asked, *limit),
                (fitting as u64 + 1, (fitting as u64 + 1) * slot_bytes as u64, 16 << 10)
            );
            let message = error.to_string();
            assert!(message.contains(&asked.to_string()) && message.contains("16384"), "{message}");
        }
        assert_eq!(caches.bytes(), CacheBytes::default(), "a refused sentence reserves nothing");
    }
    // Cross: the source alone is too long.
    for kind in Kind::BUILT_IN {
        let mut caches = Caches::new(&device, layout(kind, true, 2, DType::F32));
        let need = Need { prompt_len: 1, max_new: 2, width: 2, source_len: 5000 };
        let error = caches.admit(need).unwrap_err();
        assert!(
            matches!(error, AttentionError::SentenceTooLarge { limit: 16384, asked, .. } if asked > 16384),
            "{kind}: {error}"
        );
        assert!(caches.slabs().is_empty());
    }
}

#[test]
fn beyond_the_memory_limit_is_an_error_and_not_a_leak() {
    let device = open(DeviceOptions { memory_limit: Some(100 << 10), ..DeviceOptions::default() });
    let mut caches = Caches::new(&device, layout(Kind::MHA, true, 4, DType::F32));
    let need = |source_len: usize| Need { prompt_len: 1, max_new: 3, width: 2, source_len };
    let kept = caches.admit(need(10)).unwrap();
    let before = (device.pool().current(), caches.bytes(), caches.slab_bytes());
    // 4 layers of 5 self slots and 130 cross slots of 192 bytes: some layers would fit, all do not, which is known before the first.
    let error = caches.admit(need(130)).unwrap_err();
    let AttentionError::Tensor(TensorError::MemoryLimit { what, class, asked, used, limit }) = &error else {
        panic!("{error}")
    };
    assert!(what.contains("cache"), "{what}");
    assert_eq!((*class, *asked, *limit), (Class::Cache, 4 * (5 + 130) * 192, 100 << 10));
    assert!(used + asked > *limit);
    assert_eq!((device.pool().current(), caches.bytes(), caches.slab_bytes()), before);
    let other = caches.admit(need(20)).unwrap();
    caches.release(kept);
    caches.release(other);
    // A batch that does not fit leaves room for one that does.
    assert!(caches.prepare(&[need(100), need(100)]).is_err());
    caches.prepare(&[need(10), need(20), need(30)]).unwrap();
    check_pool(&device, &caches);
}

#[test]
fn a_batch_that_fits_is_not_refused_for_an_older_ones_sake() {
    let device = open(DeviceOptions { memory_limit: Some(100 << 10), ..DeviceOptions::default() });
    let mut caches = Caches::new(&device, layout(Kind::MHA, true, 1, DType::F32));
    // Long answers, then long sources: each fits alone, slabs for both would not.
    caches.prepare(&[Need { prompt_len: 300, max_new: 1, width: 1, source_len: 1 }]).unwrap();
    caches.prepare(&[Need { prompt_len: 1, max_new: 1, width: 1, source_len: 300 }]).unwrap();
    check_pool(&device, &caches);
}
