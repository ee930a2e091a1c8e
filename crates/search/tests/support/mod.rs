//! What the tests of searches on a device share: random options, the toy model as a decode step that checks the row tables,
//! and the comparison with the CPU twin.

#![allow(dead_code, reason = "every test takes its part")]

use std::collections::HashMap;

use elgen_search::device::{
    BatchTraits, DecodeStep, DeviceSearch, Found, NewToken, SearchBuffers, SearchError, SentenceStart,
};
use elgen_search::hooks::{Hooks, SequenceView};
use elgen_search::{
    EarlyStopping, ExponentialDecay, GenerationConfig, GenerationOptions, Hypothesis, Mode, ModelLimits, NotFinite,
    SequenceBias, TwinError, twin,
};
use elgen_tensor::{
    Arena, Class, DType, Device, DeviceOptions, RecordStats, Recorder, RowStart, RowState, Rows, Tensor, TensorError,
};

/// A small generator for test cases.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub(crate) fn ids(&mut self, count: usize, vocab: usize) -> Vec<u32> {
        (0..count).map(|_| self.below(vocab) as u32).collect()
    }
}

/// The toy model, with logits as they are, thinned out to a few finite ones, or rounded so that many are equal.
#[derive(Clone, Copy)]
pub(crate) struct Model {
    pub(crate) toy: twin::ToyModel,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Plain,
    Sparse,
    Rounded,
    /// At sequences of this length and longer ones the logit of id 5, or all of them, have this value.
    Odd {
        length: usize,
        value: f32,
        whole: bool,
    },
    /// The same of id 5 behind an even id: of some beams and not of others.
    OddBehindEven {
        length: usize,
        value: f32,
    },
}

impl Model {
    pub(crate) fn logits(&self, tokens: &[u32]) -> Vec<f32> {
        let mut logits = self.toy.logits(tokens);
        if let Kind::Odd { length, value, whole } = self.kind
            && tokens.len() >= length
        {
            let odd = if whole { 0..logits.len() } else { 5..6 };
            logits[odd].fill(value);
        }
        if let Kind::OddBehindEven { length, value } = self.kind
            && tokens.len() >= length
            && tokens.last().is_some_and(|id| id.is_multiple_of(2))
        {
            logits[5] = value;
        }
        for logit in &mut logits {
            match self.kind {
                Kind::Plain | Kind::Odd { .. } | Kind::OddBehindEven { .. } => {}
                Kind::Sparse if *logit < 2.0 => *logit = f32::NEG_INFINITY,
                Kind::Sparse => {}
                Kind::Rounded => *logit = (*logit * 2.0).round() / 2.0,
            }
        }
        logits
    }
}

/// The toy model as a decode step. Its cache holds one token per slot and is written and read as a real one would be,
/// so that a wrong slot table, or a slot that is written twice, shows.
pub(crate) struct Toy {
    model: Model,
    device: Device,
    cache: HashMap<u32, u32>,
}

impl DecodeStep for Toy {
    type Error = TensorError;

    fn vocab_size(&self) -> usize {
        self.model.toy.vocab
    }

    fn step(&mut self, _: &mut Recorder, rows: &Rows, logits: &Tensor) -> Result<(), TensorError> {
        let (tokens, slots) = rows.read_tables(&self.device, rows.capacity())?;
        let states = rows.read_states(&self.device, rows.capacity())?;
        let table = rows.max_length();
        for &row in rows.active_rows() {
            let (state, base) = (states[row as usize], row as usize * table);
            assert_eq!(state.live, state.length, "row {row}: all keys of a whole history are live");
            let fed = state.length as usize - 1;
            if fed >= state.prompt_len as usize || state.owns_prompt == 1 {
                assert_eq!(slots[base + fed], state.own_slot(fed as u32), "row {row}, position {fed}");
                let before = self.cache.insert(slots[base + fed], tokens[base + fed]);
                assert!(before.is_none_or(|token| token == tokens[base + fed]), "row {row} overwrites position {fed}");
            }
        }
        let mut values = Vec::new();
        for &row in rows.active_rows() {
            let range = row as usize * table..row as usize * table + states[row as usize].length as usize;
            let cached: Vec<u32> = slots[range.clone()].iter().map(|slot| self.cache[slot]).collect();
            assert_eq!(cached, tokens[range], "row {row}");
            values.extend(self.model.logits(&cached));
        }
        self.device.write_rows(logits, 0, &values)
    }
}

/// Runs batches of one search.
pub(crate) struct Runner {
    device: Device,
    config: GenerationConfig,
    search: DeviceSearch,
    rows: Rows,
    logits: Tensor,
    toy: Toy,
    hooks: Hooks,
    report_tokens: bool,
    /// What all steps of the last batch reported and cost.
    pub(crate) reported: Vec<NewToken>,
    pub(crate) stats: RecordStats,
    /// Rows that the steps of the last batch computed.
    pub(crate) row_steps: usize,
}

impl Runner {
    pub(crate) fn new(
        device: &Device,
        config: &GenerationConfig,
        model: Model,
        sentences: usize,
        max_length: usize,
    ) -> Self {
        let capacity = sentences * config.rows_per_sentence();
        // Uploads allocate the device's ring.
        let held = || device.pool().current().total - device.upload_ring_bytes();
        let before = held();
        let search = DeviceSearch::new(device, config, sentences, max_length - 1).unwrap();
        let plan = Arena::counting(device.capabilities().max_binding_bytes);
        SearchBuffers::build(&plan, config, sentences, max_length - 1, BatchTraits::default()).unwrap();
        assert_eq!(held() - before, plan.tally().usage().total);
        Self {
            device: device.clone(),
            config: config.clone(),
            search,
            rows: Rows::new(device, capacity, max_length).unwrap(),
            logits: device.tensor("logits", Class::Activations, capacity, model.toy.vocab, DType::F32).unwrap(),
            toy: Toy { model, device: device.clone(), cache: HashMap::new() },
            hooks: Hooks::default(),
            report_tokens: false,
            reported: Vec::new(),
            stats: RecordStats::default(),
            row_steps: 0,
        }
    }

    /// Plugs in hooks for the batches to come.
    pub(crate) fn plug(&mut self, hooks: Hooks, report_tokens: bool) {
        self.search.set_hooks(hooks.clone());
        self.search.report_tokens(report_tokens);
        (self.hooks, self.report_tokens) = (hooks, report_tokens);
    }

    /// `keep` percent of the sentences that are done stay active for another step. All sentences have finite scores.
    pub(crate) fn run(&mut self, prompts: &[(u64, Vec<u32>)], dice: &mut Dice, keep: usize) -> Vec<Vec<Hypothesis>> {
        self.try_run(prompts, dice, keep).unwrap().into_iter().map(Result::unwrap).collect()
    }

    /// The same, for hooks that fail.
    pub(crate) fn try_run(
        &mut self,
        prompts: &[(u64, Vec<u32>)],
        dice: &mut Dice,
        keep: usize,
    ) -> Result<Vec<Found>, SearchError> {
        let whole_steps = self.config.mode == Mode::DiverseBeam || !self.hooks.is_empty() || self.report_tokens;
        (self.reported, self.stats, self.row_steps) = (Vec::new(), RecordStats::default(), 0);
        let width = self.config.rows_per_sentence();
        let (mut states, mut ids, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        let sources: Vec<Vec<u32>> = prompts.iter().map(|(_, prompt)| source_of(prompt)).collect();
        let mut slot = 0u32;
        self.toy.cache.clear();
        for (sentence, (ordinal, prompt)) in prompts.iter().enumerate() {
            let lengths = self.config.lengths(prompt.len()).unwrap();
            starts.push(SentenceStart { ordinal: *ordinal, lengths, prompt, source: &sources[sentence] });
            let prompt_len = prompt.len() as u32;
            for beam in 0..width as u32 {
                states.push(RowState {
                    sentence: sentence as u32,
                    beam,
                    width: width as u32,
                    length: prompt_len,
                    live: prompt_len,
                    prompt_len,
                    prompt_base: slot,
                    gen_base: slot + prompt_len + beam,
                    owns_prompt: u32::from(beam == 0),
                    limit: 0,
                });
                ids.push((&prompt[..], lengths.max_length));
            }
            for (position, token) in prompt[..prompt.len() - 1].iter().enumerate() {
                self.toy.cache.insert(slot + position as u32, *token);
            }
            slot += prompt_len + (width * (lengths.max_length - prompt.len())) as u32;
        }
        let slabs = vec![0; states.len()];
        let begun: Vec<RowStart<'_>> = states
            .iter()
            .zip(ids)
            .map(|(state, (prompt, max_length))| RowStart { state: *state, prompt, slab: 0, max_length })
            .collect();
        self.rows.begin(&self.device, &begun).unwrap();
        self.search.begin(&starts).unwrap();
        let longest = starts.iter().map(|s| s.lengths.max_length - s.prompt.len()).max().unwrap();
        let mut frozen = vec![false; starts.len()];
        let mut rec = self.device.recorder();
        for step in 0.. {
            assert!(step < longest + 1, "the search does not end");
            self.toy.step(&mut rec, &self.rows, &self.logits).unwrap();
            self.row_steps += self.rows.count();
            let done = if whole_steps {
                let report = self.search.step(&mut rec, &mut self.rows, &self.logits)?;
                self.reported.extend(report.tokens);
                report.done.to_vec()
            } else {
                self.search.record_step(&mut rec, &mut self.rows, &self.logits).unwrap();
                self.search.submit(&mut rec).unwrap().to_vec()
            };
            self.stats += rec.take_stats();
            // The toy reads the tables from outside: what is recorded for the next step must be there.
            rec.submit().unwrap();
            rec.take_stats();
            let now = self.rows.read_states(&self.device, self.rows.capacity()).unwrap();
            for (sentence, done) in done.iter().enumerate() {
                for row in sentence * width..(sentence + 1) * width {
                    assert!(
                        !frozen[sentence] || now[row] == states[row],
                        "row {row} changed after its sentence was done"
                    );
                    states[row] = now[row];
                }
                frozen[sentence] = *done;
            }
            if done.iter().all(|done| *done) {
                break;
            }
            let stays: Vec<bool> = done.iter().map(|done| !done || dice.chance(keep)).collect();
            let active = self.rows.active_rows().iter().copied().filter(|row| stays[*row as usize / width]).collect();
            self.rows.set_active(&self.device, active, &slabs).unwrap();
        }
        self.search.finish()
    }
}

/// A source for a prompt: its ids backwards, then forwards.
pub(crate) fn source_of(prompt: &[u32]) -> Vec<u32> {
    prompt.iter().rev().chain(prompt).copied().collect()
}

/// A sequence that ends with its prompt.
pub(crate) fn view<'a>(prompt: &'a [u32], source: &'a [u32]) -> SequenceView<'a> {
    SequenceView { ordinal: 3, row: 0, source, prompt_len: prompt.len(), token_ids: prompt }
}

pub(crate) fn by_twin(config: &GenerationConfig, model: Model, ordinal: u64, prompt: &[u32]) -> Vec<Hypothesis> {
    by_twin_with(config, model, ordinal, prompt, &Hooks::default()).unwrap()
}

pub(crate) fn by_twin_with(
    config: &GenerationConfig,
    model: Model,
    ordinal: u64,
    prompt: &[u32],
    hooks: &Hooks,
) -> Result<Vec<Hypothesis>, TwinError> {
    let lengths = config.lengths(prompt.len()).unwrap();
    let mut step = |rows: &[twin::Row<'_>]| rows.iter().map(|row| model.logits(row.tokens)).collect();
    let source = source_of(prompt);
    twin::generate_with(config, lengths, twin::TwinInput { ordinal, prompt, source: &source }, hooks, &mut step)
}

pub(crate) fn close(a: f32, b: f32) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (b.is_finite() && (a - b).abs() <= 1e-4 * b.abs().max(1.0))
}

pub(crate) fn assert_same(found: &[Hypothesis], expected: &[Hypothesis], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.token_ids, expected.token_ids, "{what}\n found {found:?}\n expected {expected:?}");
        assert_eq!(found.finish_reason, expected.finish_reason, "{what}");
        assert!(close(found.score, expected.score), "{what}: score {} for {}", found.score, expected.score);
        assert_eq!(found.token_logprobs.len(), expected.token_logprobs.len(), "{what}");
        for (a, b) in found.token_logprobs.iter().zip(&expected.token_logprobs) {
            assert!(close(*a, *b), "{what}: log-probability {a} for {b}");
        }
    }
}

/// Random options: of every processor, each in about a third of the cases.
pub(crate) fn options(dice: &mut Dice, vocab: usize, num_beams: usize) -> GenerationOptions {
    let some = |dice: &mut Dice| dice.chance(30);
    let max_eos = (vocab - 2).min(3);
    let mut options = GenerationOptions {
        num_beams: Some(num_beams),
        max_new_tokens: Some(1 + dice.below(14)),
        ..GenerationOptions::default()
    };
    if dice.chance(85) {
        let count = 1 + dice.below(max_eos);
        options.eos_token_id = Some(dice.ids(count, vocab).into());
    }
    if num_beams > 1 {
        options.num_return_sequences = Some(1 + dice.below(num_beams));
        options.length_penalty = Some(dice.pick(&[1.0, 0.0, 2.0, -1.0, 0.6]));
        options.early_stopping = Some(dice.pick(&[EarlyStopping::False, EarlyStopping::True, EarlyStopping::Never]));
    }
    if some(dice) {
        options.repetition_penalty = Some(dice.pick(&[1.3, 0.8, 2.0]));
    }
    if some(dice) {
        options.no_repeat_ngram_size = Some(1 + dice.below(3));
    }
    if some(dice) {
        let mut words = Vec::new();
        for _ in 0..1 + dice.below(5) {
            let count = 1 + dice.below(3);
            words.push(dice.ids(count, vocab));
        }
        options.bad_words_ids = Some(words);
    }
    match dice.below(4) {
        0 => options.min_length = Some(dice.below(8)),
        1 => options.min_new_tokens = Some(dice.below(6)),
        _ => {}
    }
    if some(dice) {
        options.forced_bos_token_id = Some(dice.below(vocab) as u32);
    }
    if some(dice) {
        let count = 1 + dice.below(2);
        options.forced_eos_token_id = Some(dice.ids(count, vocab).into());
    }
    if some(dice) {
        let count = 1 + dice.below(3);
        options.suppress_tokens = Some(dice.ids(count, vocab));
    }
    if some(dice) {
        let count = 1 + dice.below(3);
        options.begin_suppress_tokens = Some(dice.ids(count, vocab));
    }
    options
}

/// Changes random options and the size of the vocabulary.
pub(crate) type Adjust<'a> = &'a dyn Fn(&mut Dice, &mut GenerationOptions, &mut usize);

/// Runs `cases` random option sets, two batches of each.
pub(crate) fn compare(device: &Device, seed: u64, cases: usize, adjust: Adjust<'_>, kind: Kind) {
    compare_with(device, seed, cases, adjust, kind, &|_, _| (Hooks::default(), false));
}

/// From the vocabulary: hooks, and whether tokens are reported.
pub(crate) type Plug<'a> = &'a dyn Fn(&mut Dice, usize) -> (Hooks, bool);

/// The same with hooks.
pub(crate) fn compare_with(device: &Device, seed: u64, cases: usize, adjust: Adjust<'_>, kind: Kind, plug: Plug<'_>) {
    let mut dice = Dice(seed);
    let (mut ran, mut failed) = (0, 0);
    for case in 0..cases {
        let mut vocab = dice.pick(&[5, 6, 7, 9, 16, 33, 50, 101, 257]);
        let num_beams = 1 + dice.below(6);
        let mut options = options(&mut dice, vocab, num_beams);
        adjust(&mut dice, &mut options, &mut vocab);
        let limits = ModelLimits { vocab_size: vocab, max_position_embeddings: None, is_encoder_decoder: false };
        // Some sets contradict themselves: what is forced is suppressed, too.
        let Ok((config, _)) = options.resolve(&limits) else { continue };
        ran += 1;
        let model = Model { toy: twin::ToyModel { vocab, seed: seed + case as u64 }, kind };
        let sentences = 1 + dice.below(5);
        let max_length = 6 + options.max_new_tokens.unwrap();
        let mut runner = Runner::new(device, &config, model, sentences, max_length);
        for batch in 0..2 {
            let (hooks, report_tokens) = plug(&mut dice, vocab);
            runner.plug(hooks.clone(), report_tokens);
            let count = if batch == 0 { sentences } else { 1 + dice.below(sentences) };
            let prompts: Vec<(u64, Vec<u32>)> = (0..count)
                .map(|_| {
                    let length = 1 + dice.below(6);
                    (dice.below(1 << 20) as u64 | (dice.below(99) as u64) << 32, dice.ids(length, vocab))
                })
                .collect();
            let keep = dice.pick(&[0, 50, 100]);
            let found = runner.try_run(&prompts, &mut dice, keep).unwrap();
            assert_eq!(found.len(), prompts.len());
            for (sentence, ((ordinal, prompt), found)) in prompts.iter().zip(&found).enumerate() {
                let what = format!(
                    "seed {seed} case {case} batch {batch} sentence {sentence} {prompt:?}: {options:?}, {vocab} ids"
                );
                let found = match (found, by_twin_with(&config, model, *ordinal, prompt, &hooks)) {
                    (Ok(found), Ok(expected)) => {
                        assert_same(found, &expected, &what);
                        found
                    }
                    (Err(NotFinite), Err(TwinError::NotFinite(_))) => {
                        failed += 1;
                        continue;
                    }
                    (found, expected) => panic!("{what}\n found {found:?}\n expected {expected:?}"),
                };
                if report_tokens && !config.mode.has_beams() {
                    assert_reported(&runner.reported, sentence, found, &what);
                }
            }
        }
    }
    println!("{failed} sentences of {ran} sets had no finite scores");
    assert!(ran * 10 >= cases * 8, "only {ran} of {cases} sets ran");
}

/// Makes random options sample.
pub(crate) fn sampling(dice: &mut Dice, options: &mut GenerationOptions, vocab: &mut usize) {
    options.do_sample = Some(true);
    options.num_beams = None;
    options.early_stopping = None;
    options.length_penalty = None;
    options.num_return_sequences = Some(1 + dice.below(4));
    options.temperature = Some(dice.pick(&[1.0, 0.5, 1.7]));
    options.top_k = Some(dice.pick(&[0, 1, 3, 10, 50]));
    options.top_p = Some(dice.pick(&[1.0, 0.9, 0.5, 0.1, 0.0]));
    options.seed = Some(dice.below(usize::MAX) as u64 * 0x1_0000_0001);
    if dice.chance(10) {
        *vocab = dice.pick(&[1023, 2048, 3001]);
    }
}

/// Adds random options of the processors that few checkpoints use.
pub(crate) fn further_processors(dice: &mut Dice, options: &mut GenerationOptions, vocab: &mut usize) {
    let some = |dice: &mut Dice| dice.chance(40);
    if some(dice) {
        let mut biases = Vec::new();
        for _ in 0..1 + dice.below(6) {
            let count = 1 + dice.below(3);
            biases.push((dice.ids(count, *vocab), dice.pick(&[-3.5, -1.0, 0.75, 2.0, 4.25])));
        }
        // Two sequences with one last id, whose biases add up.
        let last = biases[0].0[biases[0].0.len() - 1];
        biases.push((vec![last], 0.5));
        biases.push((vec![dice.below(*vocab) as u32, last], -0.375));
        options.sequence_bias = Some(SequenceBias(biases));
    }
    if some(dice) {
        options.encoder_repetition_penalty = Some(dice.pick(&[1.3, 0.7, 2.0]));
    }
    if some(dice) {
        options.encoder_no_repeat_ngram_size = Some(1 + dice.below(4));
    }
    if some(dice) {
        let (start, factor) = (dice.pick(&[-1.0, 0.0, 1.0, 2.5, 3.0, 5.0]), dice.pick(&[1.1, 1.7, 0.6]));
        options.exponential_decay_length_penalty = Some(ExponentialDecay { start, factor });
    }
    options.remove_invalid_values = some(dice).then_some(true);
    options.renormalize_logits = some(dice).then_some(true);
}

/// Random options of the warpers.
pub(crate) fn warpers(dice: &mut Dice, options: &mut GenerationOptions) {
    let some = |dice: &mut Dice| dice.chance(40);
    options.do_sample = Some(true);
    options.temperature = Some(dice.pick(&[1.0, 0.6, 1.8]));
    options.top_h = some(dice).then(|| dice.pick(&[0.2, 0.5, 0.9, 1.0]));
    options.top_k = Some(dice.pick(&[0, 0, 2, 7, 40]));
    options.top_p = some(dice).then(|| dice.pick(&[0.95, 0.7, 0.2]));
    options.min_p = some(dice).then(|| dice.pick(&[0.0, 0.02, 0.2, 0.7, 1.0]));
    options.typical_p = some(dice).then(|| dice.pick(&[0.9, 0.5, 0.15]));
    options.epsilon_cutoff = some(dice).then(|| dice.pick(&[0.001, 0.03, 0.4]));
    options.eta_cutoff = some(dice).then(|| dice.pick(&[0.002, 0.07, 0.5]));
}

pub(crate) fn open(checked: bool, portable: bool) -> Device {
    Device::open(&DeviceOptions { checked, portable, ..DeviceOptions::default() }).unwrap()
}

/// One step on given logits; what the kernels made of them.
pub(crate) fn one_step(
    device: &Device,
    config: &GenerationConfig,
    prompt: &[u32],
    logits: &[f32],
) -> (Vec<f32>, Vec<Hypothesis>) {
    one_step_from(device, config, prompt, prompt, logits)
}

/// The same with a source of its own.
pub(crate) fn one_step_from(
    device: &Device,
    config: &GenerationConfig,
    source: &[u32],
    prompt: &[u32],
    logits: &[f32],
) -> (Vec<f32>, Vec<Hypothesis>) {
    let mut search = DeviceSearch::new(device, config, 1, 1).unwrap();
    let width = search.width();
    let mut rows = Rows::new(device, width, prompt.len() + 1).unwrap();
    let length = prompt.len() as u32;
    let states: Vec<RowState> = (0..width as u32)
        .map(|beam| RowState {
            beam,
            width: width as u32,
            length,
            live: length,
            prompt_len: length,
            gen_base: length + beam,
            ..RowState::default()
        })
        .collect();
    let lengths = config.lengths(prompt.len()).unwrap();
    let start = |state: &RowState| RowStart { state: *state, prompt, slab: 0, max_length: lengths.max_length };
    rows.begin(device, &states.iter().map(start).collect::<Vec<_>>()).unwrap();
    search.begin(&[SentenceStart { ordinal: 3, lengths, prompt, source }]).unwrap();
    let tensor = device
        .tensor_from("logits", Class::Activations, width, config.vocab_size, DType::F32, &logits.repeat(width))
        .unwrap();
    let mut rec = device.recorder();
    search.record_step(&mut rec, &mut rows, &tensor).unwrap();
    assert_eq!(search.submit(&mut rec).unwrap(), [true]);
    let made = device.read_tensor(&tensor).unwrap();
    let padding = device.read(&tensor.buffer, tensor.buffer.bytes()).unwrap();
    let all: Vec<f32> = bytemuck::pod_collect_to_vec(&padding);
    for row in all.chunks(tensor.ld()).take(width) {
        assert!(row[tensor.cols..].iter().all(|pad| *pad == 0.0), "pad columns {:?}", &row[tensor.cols..]);
    }
    // A step may end in scores that are not finite; what it made of them is seen all the same.
    (made, search.finish().unwrap().remove(0).unwrap_or_default())
}

pub(crate) fn resolve(options: GenerationOptions, vocab_size: usize) -> GenerationConfig {
    options.resolve(&ModelLimits { vocab_size, max_position_embeddings: None, is_encoder_decoder: false }).unwrap().0
}

/// The reports of all steps are the tokens of the sequences, in order.
fn assert_reported(reported: &[NewToken], sentence: usize, found: &[Hypothesis], what: &str) {
    for (row, found) in found.iter().enumerate() {
        let own = reported.iter().filter(|new| (new.sentence, new.row) == (sentence, row));
        let (tokens, logprobs): (Vec<u32>, Vec<f32>) = own.map(|new| (new.token, new.logprob)).unzip();
        assert_eq!((&tokens, &logprobs), (&found.token_ids, &found.token_logprobs), "{what}: reports of row {row}");
    }
}
