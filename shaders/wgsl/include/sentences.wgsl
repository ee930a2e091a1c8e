// Reading the settings' tables; needs `settings: Settings` from `search`.
struct Sentence {
    max_length: u32,
    min_length: u32,
    min_new_tokens: u32,
    ordinal_low: u32,
    ordinal_high: u32,
}

fn sentence(index: u32) -> Sentence {
    let first = settings.sentences + index * 5u;
    return Sentence(
        settings.words[first],
        settings.words[first + 1u],
        settings.words[first + 2u],
        settings.words[first + 3u],
        settings.words[first + 4u],
    );
}

fn is_eos(token: u32) -> bool {
    for (var k = 0u; k < settings.eos.y; k++) {
        if (settings.words[settings.eos.x + k] == token) { return true; }
    }
    return false;
}
