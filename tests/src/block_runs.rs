//! One decode step of one attention block whose caches hold given hidden states.

use elgen_attention::{
    AttentionWeights, BlockInput, BlockSpec, CacheLayout, Caches, CrossQueries, Cx, Epilogue, Extras, Kind, Kinds,
    Need, Packed, Pass, Placement, Step, Workspace, store_encoder_output,
};
use elgen_tensor::{DType, Device, Grouping, Range, RowStart, RowState, Rows};

use crate::harness::{numbers, poisoned, read_rows, table, upload};

/// Caches with room for sentences of these needs.
fn admit(device: &Device, layout: CacheLayout, needs: &[Need]) -> (Caches, Vec<Placement>) {
    let mut caches = Caches::new(device, layout);
    caches.prepare(needs).unwrap();
    let placements = needs.iter().map(|need| caches.admit(*need).unwrap()).collect();
    (caches, placements)
}

/// The tables of `beams` rows of each sentence, all standing at the end of their prompts.
fn rows(device: &Device, placements: &[Placement], beams: usize) -> Rows {
    let of = |(s, p): (u32, &Placement)| -> Vec<_> { (0..beams as u32).map(|b| p.row(s, b)).collect() };
    let states: Vec<_> = (0..).zip(placements).flat_map(of).collect();
    let longest = states.iter().map(|s| s.prompt_len as usize).max().unwrap_or(1);
    let prompt = vec![0; longest];
    let placements = placements.iter().flat_map(|placement| std::iter::repeat_n(placement, beams));
    let start = |(state, placement): (RowState, &Placement)| RowStart {
        state,
        prompt: &prompt[..state.prompt_len as usize],
        slab: placement.slab,
        max_length: placement.max_length(),
    };
    let starts: Vec<RowStart<'_>> = states.into_iter().zip(placements).map(start).collect();
    let mut rows = Rows::new(device, starts.len(), longest + 1).unwrap();
    rows.begin(device, &starts).unwrap();
    rows
}

/// Packed rows of sentences of these lengths; `slot(placement, copy, position)` says where a row is stored.
pub fn pack(
    device: &Device,
    placements: &[Placement],
    lengths: &[usize],
    causal: bool,
    copies: usize,
    slot: impl Fn(&Placement, u32, u32) -> u32,
) -> Packed {
    let (mut ranges, mut slots, mut grouping) = (Vec::new(), vec![Vec::new(); copies], Grouping::default());
    for (sentence, (placement, length)) in (0..).zip(placements.iter().zip(lengths)) {
        let (first, count) = (ranges.len() as u32, *length as u32);
        ranges.extend((0..count).map(|p| Range::new(first, if causal { p + 1 } else { count })));
        for (copy, list) in (0..).zip(&mut slots) {
            list.extend((0..count).map(|p| slot(placement, copy, p)));
        }
        grouping.push(placement.slab, sentence, count);
    }
    Packed {
        tokens: ranges.len(),
        index: numbers(device, &(0..ranges.len() as u32).collect::<Vec<_>>()),
        ranges: table(device, &ranges),
        groups: table(device, &grouping.groups),
        segments: grouping.segments,
        slots: slots.iter().map(|s| numbers(device, s)).collect(),
        cross_ranges: None,
    }
}

/// Cross-attention of `queries` `[sentences * beams, d_model]` over each sentence's `memory` `[_, d_model]`, which may be empty: the block's outputs,
/// nothing added.
///
/// # Panics
/// The block or the device failed.
pub fn cross_step(
    device: &Device,
    kind: Kind,
    spec: &BlockSpec<'_>,
    weights: AttentionWeights<'_>,
    memory: &[Vec<f32>],
    beams: usize,
    queries: &[f32],
) -> Vec<f32> {
    let (shape, d) = (spec.shape, spec.shape.d_model);
    let block = kind.cross_attention(&device.into(), spec, weights).unwrap();
    let kinds = Kinds::both(kind);
    let layout = CacheLayout {
        layers: spec.layer + 1,
        self_shape: shape,
        kinds,
        cross_shape: Some(shape),
        format: spec.formats.cache,
    };
    let lengths: Vec<usize> = memory.iter().map(|m| m.len() / d).collect();
    let needs: Vec<Need> =
        lengths.iter().map(|n| Need { prompt_len: 1, max_new: 1, width: beams, source_len: *n }).collect();
    let (caches, placements) = admit(device, layout, &needs);
    let copies = placements[0].copies().1;
    let batch = pack(device, &placements, &lengths, false, copies, |p, copy, at| p.cross_range(copy).first + at);
    let cross_slots = caches.slabs().iter().map(|s| s.cross[0].rows).max().unwrap();
    let extras = Extras { kinds, pass: Pass::Step, cross_slots, ..Extras::default() };
    let rows = rows(device, &placements, beams);
    let work = Workspace::new(device, shape, batch.tokens.max(rows.count()), extras).unwrap();
    let x = upload(device, batch.tokens, d, &memory.concat());
    let mut rec = device.recorder();
    store_encoder_output(&mut rec, &x, &batch, &caches).unwrap();
    block.cache_sources(&mut Cx::new(&mut rec, &caches, &work), &x, &batch).unwrap();
    rec.submit().unwrap();

    let ranges: Vec<Range> = placements.iter().flat_map(|p| (0..beams as u32).map(|b| p.cross_range(b))).collect();
    let ranges = table(device, &ranges);
    let queries = upload(device, rows.count(), d, queries);
    let out = poisoned(device, rows.count(), d, DType::F32);
    let of = CrossQueries {
        index: rows.active(),
        ranges: ranges.view(),
        groups: rows.groups(),
        segments: rows.segments(),
        count: rows.count(),
    };
    let mut rec = device.recorder();
    let epilogue = Epilogue { residual: None, out: &out };
    block.attend(&mut Cx::new(&mut rec, &caches, &work), &BlockInput::plain(&queries), &epilogue, of).unwrap();
    rec.submit().unwrap();
    read_rows(device, &out, rows.count(), "cross-attention")
}

/// Self-attention of the last position of each sentence's `hidden` `[_, d_model]` over all of them; those before are a prompt that was prefilled. The
/// block's outputs, nothing added.
///
/// # Panics
/// The block or the device failed, or a sentence has fewer than two positions.
pub fn self_step(
    device: &Device,
    kind: Kind,
    spec: &BlockSpec<'_>,
    weights: AttentionWeights<'_>,
    hidden: &[Vec<f32>],
) -> Vec<f32> {
    let (shape, d) = (spec.shape, spec.shape.d_model);
    let block = kind.self_attention(&device.into(), spec, weights).unwrap();
    let (kinds, format) = (Kinds::both(kind), spec.formats.cache);
    let layout = CacheLayout { layers: spec.layer + 1, kinds, self_shape: shape, cross_shape: None, format };
    let lengths: Vec<usize> = hidden.iter().map(|x| x.len() / d - 1).collect();
    let needs: Vec<Need> =
        lengths.iter().map(|n| Need { prompt_len: n + 1, max_new: 1, width: 1, source_len: 0 }).collect();
    let (caches, placements) = admit(device, layout, &needs);
    let batch = pack(device, &placements, &lengths, true, 1, |p, copy, at| p.row(0, copy).own_slot(at));
    let work = |pass| Workspace::new(device, shape, batch.tokens, Extras { kinds, pass, ..Extras::default() }).unwrap();
    let (prompt_work, work) = (work(Pass::Prompt), work(Pass::Step));
    let (prompts, last): (Vec<&[f32]>, Vec<&[f32]>) = hidden.iter().map(|x| x.split_at(x.len() - d)).unzip();
    let ignored = poisoned(device, batch.tokens, d, DType::F32);
    let x = upload(device, batch.tokens, d, &prompts.concat());
    let mut rec = device.recorder();
    let epilogue = Epilogue { residual: None, out: &ignored };
    block.prefill(&mut Cx::new(&mut rec, &caches, &prompt_work), &BlockInput::plain(&x), &epilogue, &batch).unwrap();
    rec.submit().unwrap();

    let rows = rows(device, &placements, 1);
    let x = upload(device, rows.count(), d, &last.concat());
    let out = poisoned(device, rows.count(), d, DType::F32);
    let mut rec = device.recorder();
    let epilogue = Epilogue { residual: None, out: &out };
    let step = Step { rows: &rows, cross_ranges: None };
    block.step(&mut Cx::new(&mut rec, &caches, &work), &BlockInput::plain(&x), &epilogue, step).unwrap();
    rec.submit().unwrap();
    read_rows(device, &out, rows.count(), "self-attention")
}
