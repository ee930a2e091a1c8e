//! A hub that stops, slows down, breaks off or sends too much.
#![cfg(feature = "hub")]

#[path = "common/hostile.rs"]
mod hostile;

use std::time::Duration;

use elgen_engine::hub::HubLimits;
use hostile::{
    Ask, COMMIT, CONFIG, Case, Drip, Endless, Hang, Kind, Send, WEIGHTS, World, head, headers, limits, on, on_list,
    run_all,
};

#[test]
fn silence_ends() {
    const SILENT: &[&str] = &["the hub at 127.0.0.1", "does not answer"];
    let wait = |_: &Ask, _: &World| vec![Hang];
    let half = |text: &'static str| move |_: &Ask, _: &World| vec![Send(text.as_bytes().to_vec()), Hang];
    let long = || format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(4000)).into_bytes();
    let mut cases = vec![
        Case::fails("list: nothing", SILENT, on_list(|_| vec![Hang])).at_most(2),
        Case::fails(
            "list: half a head",
            SILENT,
            on_list(|_| vec![Send(b"HTTP/1.1 200 OK\r\nContent-".to_vec()), Hang]),
        ),
        Case::fails("list: no body", SILENT, on_list(|_| vec![Send(head(200, &[("Content-Length", "500")])), Hang])),
        Case::fails(
            "list: half a body",
            SILENT,
            on_list(|world| {
                let list = world.honest_list();
                let length = list.len().to_string();
                vec![Send(head(200, &[("Content-Length", &length)])), Send(list[..50].to_vec()), Hang]
            }),
        ),
        Case::fails("list: drops of a head", SILENT, on_list(move |_| vec![Drip(long(), 50)])),
        Case::fails(
            "list: drops of a body",
            SILENT,
            on_list(|world| {
                let list = world.list(COMMIT, &["x"; 300]);
                vec![Send(head(200, &[("Content-Length", &list.len().to_string())])), Drip(list, 100)]
            }),
        ),
        Case::fails(
            "list: whole, but no end",
            SILENT,
            on_list(|world| vec![Send(head(200, &[])), Send(world.honest_list()), Hang]),
        ),
        Case::fails(
            "list: interim answers",
            SILENT,
            on_list(|_| vec![Endless(b"HTTP/1.1 102 Processing\r\n\r\n".to_vec(), 20)]),
        ),
        Case::fails(
            "list: endless headers",
            &["list of files"],
            on_list(|_| {
                vec![
                    Send(b"HTTP/1.1 200 OK\r\n".to_vec()),
                    Endless(b"X-Y: zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz\r\n".to_vec(), 0),
                ]
            }),
        ),
        Case::fails(
            "list: an endless header",
            &["list of files"],
            on_list(|_| vec![Send(b"HTTP/1.1 200 OK\r\nX: ".to_vec()), Endless(vec![b'a'; 4096], 0)]),
        ),
        Case::fails(
            "list: a chunk without end",
            SILENT,
            on_list(|_| {
                vec![
                    Send(head(200, &[("Transfer-Encoding", "chunked")])),
                    Send(b"1".to_vec()),
                    Endless(b"0".to_vec(), 200),
                ]
            }),
        ),
        Case::fails("metadata: nothing", SILENT, on(Kind::Info, CONFIG, wait)),
        Case::fails("metadata: half a head", SILENT, on(Kind::Info, CONFIG, half("HTTP/1.1 206 X\r\nETag: \"a"))),
        Case::fails("metadata: drops of a head", SILENT, on(Kind::Info, WEIGHTS, move |_, _| vec![Drip(long(), 50)])),
        Case::fails("body: nothing", SILENT, on(Kind::Body, CONFIG, wait)),
        Case::fails("body: half a head", SILENT, on(Kind::Body, WEIGHTS, half("HTTP/1.1 206 X\r\n"))),
        Case::fails("body: drops of a head", SILENT, on(Kind::Body, WEIGHTS, move |_, _| vec![Drip(long(), 50)])),
        Case::fails(
            "body: a head alone",
            &["less than 1024 bytes in 1s"],
            on(Kind::Body, WEIGHTS, |ask, world| vec![Send(world.head_of(ask, 206, &[])), Hang]),
        ),
        Case::fails(
            "body: half",
            SILENT,
            on(Kind::Body, WEIGHTS, |ask, world| {
                let steps = world.with(ask, &[]);
                let Send(body) = &steps[1] else { unreachable!() };
                vec![steps[0].clone(), Send(body[..body.len() / 2].to_vec()), Hang]
            }),
        )
        .at_most(30)
        .seeing(|_, asks| {
            let starts: Vec<_> = asks.iter().filter(|ask| ask.is(Kind::Body, WEIGHTS)).map(|ask| ask.start).collect();
            assert!(starts.len() > 1 && starts.len() <= 5 && starts.is_sorted_by(|a, b| a < b), "{starts:?}");
        }),
        Case::fails(
            "body: drops",
            SILENT,
            on(Kind::Body, WEIGHTS, |ask, world| vec![Send(world.head_of(ask, 206, &[])), Endless(b"a".to_vec(), 100)]),
        ),
        Case::fails(
            "body: drops of a small file",
            SILENT,
            on(Kind::Body, CONFIG, |ask, world| vec![Send(world.head_of(ask, 206, &[])), Endless(b"a".to_vec(), 300)]),
        ),
        Case::fails(
            "body: drops of a chunk's size",
            SILENT,
            on(Kind::Body, WEIGHTS, |ask, world| {
                let chunked = [("Transfer-Encoding", "chunked"), ("Content-Length", "")];
                vec![Send(world.head_of(ask, 206, &chunked)), Send(b"1".to_vec()), Endless(b"0".to_vec(), 100)]
            }),
        ),
        Case::fails(
            "body: drops of a chunk's extension",
            SILENT,
            on(Kind::Body, WEIGHTS, |ask, world| {
                let chunked = [("Transfer-Encoding", "chunked"), ("Content-Length", "")];
                vec![Send(world.head_of(ask, 206, &chunked)), Send(b"1;".to_vec()), Endless(b"a".to_vec(), 100)]
            }),
        ),
        Case::fails("body elsewhere: nothing", SILENT, |ask, world| match ask {
            Ask { to_hub: true, .. } if ask.file == WEIGHTS => {
                Some(world.redirect(ask, &format!("{}/{WEIGHTS}", world.other)))
            }
            Ask { to_hub: false, .. } => Some(vec![Hang]),
            _ => None,
        }),
        Case::fails(
            "redirects in drops",
            SILENT,
            on(Kind::Info, CONFIG, |ask, _| {
                let rest = format!("Location: {}\r\n\r\n", ask.path).into_bytes();
                vec![Drip(b"HTTP/1.1 302 Found\r\n".to_vec(), 80), Send(rest)]
            }),
        ),
        Case::works("slow, but it moves on", |ask, world| {
            ask.is(Kind::Body, WEIGHTS).then(|| {
                let steps = world.with(ask, &[]);
                let Send(body) = &steps[1] else { unreachable!() };
                let (last, rest) = body.split_at(body.len() - 3000);
                vec![steps[0].clone(), Send(last.to_vec()), Drip(rest.to_vec(), 1)]
            })
        }),
    ];
    if let Some(case) = cases.last_mut() {
        // Longer than the silence, which counts from the last bytes on.
        case.limits = patient();
    }
    run_all(cases);
}

fn patient() -> HubLimits {
    HubLimits { silence: Duration::from_secs(2), stall: Duration::from_secs(2), stall_bytes: 300, ..limits() }
}

#[test]
fn broken_connections_are_tried_again_four_times_at_most() {
    let close = |_: &Ask, _: &World| Vec::new();
    run_all(vec![
        Case::fails("list: closed", &["cannot be reached"], on_list(|_| Vec::new())).at_most(5),
        Case::fails("metadata: closed", &["cannot be reached"], on(Kind::Info, CONFIG, close)).at_most(6),
        Case::fails("body: closed", &["cannot be reached"], on(Kind::Body, CONFIG, close)).at_most(7),
        Case::fails(
            "half a head",
            &["cannot be reached"],
            on(Kind::Body, CONFIG, |_, _| vec![Send(b"HTTP/1.1 2".to_vec())]),
        )
        .at_most(7),
        Case::fails(
            "half a list",
            &["list of files", "broke off"],
            on_list(|_| vec![Send(head(200, &[("Content-Length", "500")])), Send(b"{".to_vec())]),
        ),
        Case::fails(
            "nothing of a body",
            &["broke off", "0 of 300000 bytes"],
            on(Kind::Body, WEIGHTS, |ask, world| vec![Send(world.head_of(ask, 206, &[]))]),
        )
        .at_most(11),
        Case::works("cut four times", |ask, world| {
            (ask.is(Kind::Body, WEIGHTS) && ask.before < 4).then(|| {
                let steps = world.with(ask, &[]);
                let Send(body) = &steps[1] else { unreachable!() };
                vec![steps[0].clone(), Send(body[..20_000].to_vec())]
            })
        })
        .seeing(|_, asks| {
            let starts: Vec<_> = asks.iter().filter(|ask| ask.is(Kind::Body, WEIGHTS)).map(|ask| ask.start).collect();
            assert_eq!(starts, [0, 20_000, 40_000, 60_000, 80_000]);
        }),
        Case::works("ranges are not known", |ask, world| {
            (ask.is(Kind::Body, WEIGHTS)).then(|| {
                let size = world.size(WEIGHTS).to_string();
                let mut body = world.files[WEIGHTS].clone();
                if ask.before == 0 {
                    body.truncate(100_000);
                }
                vec![Send(world.head_of(ask, 200, &[("Content-Length", &size)])), Send(body)]
            })
        }),
        Case::fails(
            "another part",
            &["not the bytes from 0 on"],
            headers(Kind::Body, &[("Content-Range", "bytes 5-879/880")]),
        ),
        Case::fails(
            "a part of the part",
            &["instead of 880"],
            headers(Kind::Body, &[("Content-Range", "bytes 0-99/880")]),
        ),
        Case::fails("no range", &["not the bytes"], headers(Kind::Body, &[("Content-Range", "")])),
        Case::fails("many parts", &["content-range"], headers(Kind::Body, &[("Content-Range", "bytes 0-1,3-4/880")])),
        Case::fails("backwards", &["content-range"], headers(Kind::Body, &[("Content-Range", "bytes 879-0/880")])),
        Case::fails(
            "out of range",
            &["damaged", "bytes instead of"],
            on(Kind::Body, WEIGHTS, |ask, world| {
                vec![Send(world.head_of(ask, 416, &[("Content-Range", "bytes */7")]))]
            }),
        ),
        Case::fails(
            "no HTTP",
            &["list of files"],
            on_list(|_| vec![Send(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n\r\n".to_vec())]),
        ),
        Case::fails(
            "two lengths",
            &["config.json"],
            headers(Kind::Body, &[("Content-Length", "880"), ("Content-Length", "5")]),
        ),
        Case::fails("a negative length", &["config.json"], headers(Kind::Body, &[("Content-Length", "-1")])),
        Case::fails("500", &["status 500"], on(Kind::Info, CONFIG, |_, _| vec![Send(head(500, &[]))])).at_most(6),
        Case::fails("404", &["status 404"], on(Kind::Info, CONFIG, |_, _| vec![Send(head(404, &[]))])).at_most(2),
        Case::fails("410", &["status 410"], on(Kind::Body, CONFIG, |_, _| vec![Send(head(410, &[]))])).at_most(3),
        Case::fails("204", &["status 204"], on_list(|_| vec![Send(head(204, &[]))])).at_most(1),
        Case::fails(
            "later",
            &["status 429", "300 s"],
            on(Kind::Info, CONFIG, |_, _| vec![Send(head(429, &[("Retry-After", "300")]))]),
        )
        .at_most(2),
        Case::works("soon", |ask, _| {
            (ask.is(Kind::Info, CONFIG) && ask.before < 3).then(|| {
                vec![Send(head([503, 429, 408][ask.before], &[("Retry-After", "0"), ("Content-Length", "0")]))]
            })
        }),
        Case::works("an interim answer", |ask, world| {
            ask.is(Kind::Body, CONFIG).then(|| {
                let mut steps = vec![Send(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec())];
                steps.extend(world.with(ask, &[]));
                steps
            })
        }),
    ]);
}

#[test]
fn no_body_is_longer_than_announced() {
    const CHUNKED: &[(&str, &str)] = &[("Transfer-Encoding", "chunked"), ("Content-Length", "")];
    let chunk = || [b"10000\r\n".to_vec(), vec![b' '; 1 << 16], b"\r\n".to_vec()].concat();
    let mirror = |length: usize| {
        move |ask: &Ask, world: &World| match (ask.file.as_str(), ask.kind) {
            (CONFIG, Kind::Info) => Some(world.with(ask, &[("ETag", "W/\"0af5-18c\"")])),
            (CONFIG, Kind::Body) => {
                let mut body = world.files[CONFIG].clone();
                body.resize(length, b' ');
                body.drain(..ask.start);
                Some(vec![
                    Send(world.head_of(ask, 206, &[("ETag", "W/\"0af5-18c\""), ("Content-Length", "")])),
                    Send(body),
                ])
            }
            _ => None,
        }
    };
    let mut no_room = Case::fails(
        "no room",
        &["more bytes do not fit", "are free"],
        on(Kind::Info, WEIGHTS, |ask, world| world.with(ask, &[("Content-Range", "bytes 0-0/4611686018427387904")])),
    );
    no_room.limits.weight_bytes = u64::MAX;
    let mut empty = Case::works("an empty file", |_, _| None);
    empty.empty = Some("merges.txt");
    run_all(vec![
        no_room,
        empty,
        Case::fails(
            "endless",
            &["damaged", "git object id"],
            on(Kind::Body, CONFIG, |ask, world| {
                vec![Send(world.head_of(ask, 206, &[("Content-Length", "")])), Endless(vec![b' '; 1 << 16], 0)]
            }),
        )
        .at_most(4),
        Case::fails(
            "endless chunks",
            &["damaged", "git object id"],
            on(Kind::Body, CONFIG, move |ask, world| vec![Send(world.head_of(ask, 206, CHUNKED)), Endless(chunk(), 0)]),
        ),
        Case::fails(
            "endless weights",
            &["damaged", "SHA-256"],
            on(Kind::Body, WEIGHTS, |ask, world| {
                vec![Send(world.head_of(ask, 206, &[("Content-Length", "")])), Endless(vec![b' '; 1 << 16], 0)]
            }),
        ),
        Case::fails(
            "a larger length",
            &["damaged", "instead of 880"],
            headers(Kind::Body, &[("Content-Length", "99999999")]),
        ),
        Case::fails(
            "a smaller length",
            &["damaged", "instead of 880"],
            headers(Kind::Body, &[("Content-Length", "8")]),
        ),
        Case::works("the etag of a mirror", mirror(880)),
        Case::fails("one byte more than a mirror announced", &["damaged", "more than the 880 bytes"], mirror(881)),
        Case::fails("one byte less than a mirror announced", &["broke off", "bytes came"], mirror(879)),
        Case::fails("packed", &["content-encoding"], headers(Kind::Body, &[("Content-Encoding", "gzip")])).at_most(3),
        Case::fails(
            "packed otherwise",
            &["content-encoding"],
            headers(Kind::Body, &[("Content-Encoding", "br, zstd")]),
        ),
        Case::fails(
            "a packed list",
            &["content-encoding"],
            on_list(|world| vec![Send(head(200, &[("Content-Encoding", "gzip")])), Send(world.honest_list())]),
        ),
        Case::fails("packed metadata", &["content-encoding"], headers(Kind::Info, &[("Content-Encoding", "deflate")])),
        Case::fails(
            "a large config",
            &["67108865 bytes", "67108864 at most"],
            headers(Kind::Info, &[("Content-Range", "bytes 0-0/67108865")]),
        )
        .at_most(2),
        Case::fails(
            "large weights",
            &["at most"],
            on(Kind::Info, WEIGHTS, |ask, world| {
                world.with(ask, &[("Content-Range", "bytes 0-0/18446744073709551615")])
            }),
        ),
        Case::fails(
            "no number",
            &["content-range"],
            headers(Kind::Info, &[("Content-Range", "bytes 0-0/18446744073709551616")]),
        ),
        Case::fails("no size", &["no size"], headers(Kind::Info, &[("Content-Range", "bytes 0-0/*")])),
        Case::fails("two sizes", &["880 bytes"], headers(Kind::Info, &[("X-Linked-Size", "9")])),
        Case::fails(
            "a long list",
            &["more than 10485760 bytes"],
            on_list(|_| vec![Send(head(200, &[("Content-Length", "10485761")])), Endless(vec![b' '; 1 << 16], 0)]),
        )
        .at_most(1),
        Case::fails(
            "an endless list",
            &["more than 10485760 bytes"],
            on_list(|_| vec![Send(head(200, &[])), Endless(vec![b' '; 1 << 16], 0)]),
        ),
        Case::fails(
            "a deep list",
            &["list of files"],
            on_list(|_| vec![Send(head(200, &[])), Send(vec![b'['; 1 << 20])]),
        ),
        Case::fails(
            "an empty list",
            &["list of files"],
            on_list(|_| vec![Send(head(200, &[("Content-Length", "0")]))]),
        ),
        Case::fails(
            "a page instead of a list",
            &["list of files"],
            on_list(|_| vec![Send(head(200, &[])), Send(b"<html>".to_vec())]),
        ),
        Case::fails(
            "a part of a list",
            &["status 206"],
            on_list(|world| vec![Send(head(206, &[])), Send(world.honest_list())]),
        ),
        Case::works("a whole file for its first byte", |ask, world| {
            (ask.kind == Kind::Info && ask.file == CONFIG).then(|| {
                vec![Send(world.head_of(ask, 200, &[("Content-Length", "880")])), Send(world.files[CONFIG].clone())]
            })
        }),
    ]);
}
