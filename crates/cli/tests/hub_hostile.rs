//! What a hub, someone on the way to it, or someone who can write to the cache may try.
#![cfg(feature = "hub")]

#[path = "common/hostile.rs"]
mod hostile;

use std::{fs, path::PathBuf, process::Command};

use hostile::{
    Ask, COMMIT, CONFIG, Case, Endless, Kind, NAME, Send, Step, WEIGHTS, World, head, headers, on, on_list, run_all,
};

#[test]
fn nothing_that_is_said_leads_out_of_the_cache() {
    const HASH: &str = "00112233445566778899aabbccddeeff00112233";
    const INDEX: &str = "model.safetensors.index.json";
    let list = |commit: &'static str, names: &'static [&'static str]| {
        on_list(move |world| vec![Send(head(200, &[])), Send(world.list(commit, names))])
    };
    let index = |text: &'static str| {
        let names = &[CONFIG, "tokenizer.json", INDEX, "../evil.safetensors", "/evil.safetensors"];
        let mut case = Case::fails("an index that leads elsewhere", &["not an index of shards"], list(COMMIT, names));
        case.files = vec![(INDEX, text.as_bytes().to_vec())];
        case
    };
    let mut cases = vec![
        Case::fails("a second etag, absolute", &["etag"], |ask, world| {
            let etag = world.victim.to_str().unwrap();
            ask.is(Kind::Body, CONFIG).then(|| world.with(ask, &[("ETag", etag)]))
        })
        .at_most(3),
        Case::fails(
            "a second etag, relative",
            &["etag"],
            headers(Kind::Body, &[("ETag", "\"../../../../outside/victim\"")]),
        ),
        Case::fails("a second etag, possible", &["another etag"], headers(Kind::Body, &[("ETag", HASH)])),
        Case::fails("a second linked etag", &["another etag"], headers(Kind::Body, &[("X-Linked-ETag", HASH)])),
        Case::fails("a second etag, empty", &["etag"], headers(Kind::Body, &[("ETag", "\"\"")])),
        Case::fails("a second commit", &["commit"], headers(Kind::Body, &[("X-Repo-Commit", HASH)])),
        Case::fails(
            "a second commit that is a path",
            &["commit"],
            headers(Kind::Body, &[("X-Repo-Commit", "../../x")]),
        ),
        Case::fails(
            "another size afterwards",
            &["damaged", "instead of"],
            headers(Kind::Body, &[("Content-Range", "bytes 0-879/99999")]),
        ),
        Case::fails("an etag that is a path", &["etag"], |ask, world| {
            let etag = format!("\"{}\"", world.victim.display());
            ask.is(Kind::Info, CONFIG).then(|| world.with(ask, &[("ETag", &etag)]))
        }),
        Case::fails("an etag of dots", &["etag"], headers(Kind::Info, &[("ETag", "\"..\"")])),
        Case::fails("a weak etag that is a path", &["etag"], headers(Kind::Info, &[("ETag", "W/\"../../x\"")])),
        Case::fails("a linked etag that is a path", &["etag"], headers(Kind::Info, &[("X-Linked-ETag", "\"../x\"")])),
        Case::fails("a backslash in an etag", &["etag"], headers(Kind::Info, &[("ETag", r"..\..\x")])),
        Case::fails("an endless etag", &["etag"], |ask, world| {
            ask.is(Kind::Info, CONFIG).then(|| world.with(ask, &[("ETag", &"a".repeat(5000))]))
        }),
        Case::fails("two etags", &["two values of etag"], headers(Kind::Info, &[("ETag", HASH), ("ETag", "0af5")])),
        Case::fails("no etag", &["no etag"], headers(Kind::Info, &[("ETag", "")])),
        Case::fails("no commit", &["no commit"], headers(Kind::Info, &[("X-Repo-Commit", "")])),
        Case::fails(
            "a commit that is a path",
            &["commit"],
            headers(Kind::Info, &[("X-Repo-Commit", "../../../outside")]),
        ),
        Case::fails("another commit", &["commit"], headers(Kind::Info, &[("X-Repo-Commit", HASH)])),
        Case::fails(
            "two commits",
            &["two values"],
            headers(Kind::Info, &[("X-Repo-Commit", COMMIT), ("X-Repo-Commit", HASH)]),
        ),
        Case::fails("a list of a path", &["is no commit"], list("../../../../../../../../../outside/x", &[CONFIG])),
        Case::fails("a list of a branch", &["is no commit"], list("main", &[CONFIG])),
        Case::fails("control characters", &["is no commit", r"\u{1b}"], list("\u{1b}[31m\nmain", &[CONFIG])),
        Case::fails(
            "names that lead elsewhere",
            &["no config.json"],
            list(COMMIT, &["../config.json", "/config.json", "./config.json"]),
        ),
        // What the other host says about names is not listened to.
        Case::works("names at the other host", |ask, world| match ask {
            Ask { to_hub: true, .. } if ask.file == WEIGHTS => {
                Some(world.redirect(ask, &format!("{}/{WEIGHTS}", world.other)))
            }
            Ask { to_hub: false, .. } => {
                Some(world.with(ask, &[("ETag", "\"../../../outside/victim\""), ("X-Repo-Commit", "../x")]))
            }
            _ => None,
        }),
    ];
    cases.extend(
        [
            r#"{"weight_map":{"a":"../evil.safetensors"}}"#,
            r#"{"weight_map":{"a":"/evil.safetensors"}}"#,
            r#"{"weight_map":{"a":"\u001b[31m\n.safetensors"}}"#,
            r#"{"weight_map":{"a":"x\u0000.safetensors"}}"#,
            r#"{"weight_map":{"a":"refs/main"}}"#,
            r#"{"weight_map":{}}"#,
        ]
        .map(index),
    );
    let mut other_commit = Case::fails("a list of another commit", &["instead of"], |_, _| None);
    other_commit.revision = Some(HASH.to_owned());
    cases.push(other_commit);
    run_all(cases);
}

#[test]
fn the_token_stays_with_the_hub() {
    let to_other = |ask: &Ask, world: &World| Some(world.redirect(ask, &format!("{}{}", world.other, ask.path)));
    let seen = |_: &World, asks: &[Ask]| {
        assert!(asks.iter().any(|ask| !ask.to_hub), "the other host was not asked");
        assert!(asks.iter().filter(|ask| ask.to_hub).all(|ask| ask.headers.contains_key("authorization")));
    };
    let away = |_: &World, asks: &[Ask]| {
        for ask in asks.iter().filter(|ask| ask.path.starts_with("/back/")) {
            assert!(!ask.headers.contains_key("authorization"), "{ask:?}");
        }
        assert!(asks.iter().any(|ask| ask.path.starts_with("/back/")));
    };
    run_all(vec![
        Case::works(
            "weights elsewhere",
            move |ask, world| {
                if ask.to_hub && ask.file == WEIGHTS { to_other(ask, world) } else { None }
            },
        )
        .seeing(|_, asks| {
            // The hub said what there is to know: the other host is asked for the content alone.
            let others: Vec<_> = asks.iter().filter(|ask| !ask.to_hub).collect();
            assert!(others.len() == 1 && others[0].kind == Kind::Body, "{others:?}");
        }),
        Case::works("everything elsewhere", move |ask, world| if ask.to_hub { to_other(ask, world) } else { None })
            .seeing(seen),
        Case::works("the size is known elsewhere only", move |ask, world| {
            let to = format!("{}{}", world.other, ask.path);
            (ask.to_hub && ask.file == WEIGHTS)
                .then(|| vec![Send(world.head_of(ask, 302, &[("Content-Length", "0"), ("Location", &to)]))])
        })
        .seeing(seen),
        Case::works("without a scheme", |ask, world| {
            let to = format!("{}{}", world.other.strip_prefix("http:").unwrap(), ask.path);
            (ask.to_hub && ask.file == WEIGHTS).then(|| world.redirect(ask, &to))
        })
        .seeing(seen),
        Case::works("the same machine by another name", |ask, world| {
            let to = format!("{}/back/{}", world.hub.replace("127.0.0.1", "localhost"), ask.file);
            (ask.file == WEIGHTS && !ask.path.starts_with("/back/")).then(|| world.redirect(ask, &to))
        })
        .seeing(away),
        Case::works("there and back", |ask, world| match ask {
            Ask { to_hub: true, .. } if ask.file == WEIGHTS && !ask.path.starts_with("/back/") => {
                Some(world.redirect(ask, &format!("{}/{WEIGHTS}", world.other)))
            }
            Ask { to_hub: false, .. } => Some(world.redirect(ask, &format!("{}/back/{WEIGHTS}", world.hub))),
            _ => None,
        })
        .seeing(away),
        Case::works("a cookie", |ask, world| match ask {
            Ask { to_hub: true, .. } if ask.file == WEIGHTS => {
                let to = format!("{}/{WEIGHTS}", world.other);
                let cookie = [
                    ("Set-Cookie", "a=b; Domain=127.0.0.1; Path=/"),
                    ("Location", to.as_str()),
                    ("Content-Length", "0"),
                ];
                Some(vec![Send(world.head_of(ask, 302, &cookie))])
            }
            _ => None,
        })
        .seeing(seen),
        Case::works("a relative redirect keeps it", |ask, _| {
            (ask.file == CONFIG && !ask.path.starts_with("/cache/"))
                .then(|| vec![Send(head(307, &[("Location", "/cache/config.json?a=%2Fb"), ("Content-Length", "0")]))])
        })
        .seeing(|_, asks| assert!(asks.iter().all(|ask| ask.headers.contains_key("authorization")))),
        Case::fails("a user in the address", &["redirect", "user"], |ask, world| {
            let to = world.other.replace("http://", "http://hf_user:word@");
            (ask.file == CONFIG).then(|| world.redirect(ask, &to))
        }),
        Case::fails("denied elsewhere", &["status 403", "where it redirects"], |ask, world| match ask {
            Ask { to_hub: true, .. } if ask.file == WEIGHTS => Some(world.redirect(ask, &format!("{}/w", world.other))),
            Ask { to_hub: false, .. } => Some(vec![Send(head(403, &[("Content-Length", "0")]))]),
            _ => None,
        })
        .at_most(8),
    ]);
}

#[test]
fn redirects_end() {
    fn to(kind: Kind, location: &'static str) -> impl Fn(&Ask, &World) -> Option<Vec<Step>> + std::marker::Send + Sync {
        move |ask, world| {
            (ask.to_hub && ask.kind == kind).then(|| {
                let to = location.replace("HUB", &world.hub).replace("SELF", &ask.path);
                vec![Send(head(
                    302,
                    &[("Location", &to), ("Content-Length", "0"), ("ETag", "a"), ("X-Repo-Commit", COMMIT)],
                ))]
            })
        }
    }
    const MANY: &[&str] = &["more than 5 redirects"];
    run_all(vec![
        Case::fails("list, relative", MANY, to(Kind::List, "SELF")).at_most(6),
        Case::fails("list, absolute", MANY, to(Kind::List, "HUBSELF")).at_most(6),
        Case::fails("metadata, relative", MANY, to(Kind::Info, "SELF")).at_most(7),
        Case::fails("metadata, absolute", MANY, to(Kind::Info, "HUBSELF")).at_most(7),
        Case::fails("metadata, no path", MANY, to(Kind::Info, "")).at_most(7),
        Case::fails("metadata, a growing path", MANY, to(Kind::Info, "x/x")).at_most(7),
        Case::fails("metadata, a growing query", MANY, to(Kind::Info, "SELF?x")).at_most(7),
        Case::fails("body, relative", MANY, |ask, world| {
            ask.is(Kind::Body, CONFIG).then(|| world.redirect(ask, &ask.path))
        })
        .at_most(8),
        Case::fails("body, between two hosts", MANY, |ask, world| {
            let to = if ask.to_hub { &world.other } else { &world.hub };
            (ask.kind == Kind::Body).then(|| world.redirect(ask, &format!("{to}{}", ask.path)))
        })
        .at_most(8),
        Case::fails("list, between two hosts", MANY, |ask, world| {
            let to = if ask.to_hub { &world.other } else { &world.hub };
            Some(world.redirect(ask, &format!("{to}{}", ask.path)))
        })
        .at_most(6),
        Case::works("five", |ask, _| {
            let hops = ask.path.matches("/hop").count();
            (ask.file == CONFIG && hops < 5).then(|| {
                let to = format!("/{NAME}/{}{CONFIG}", "hop/".repeat(hops + 1));
                vec![Send(head(308, &[("Location", &to), ("Content-Length", "0")]))]
            })
        }),
        Case::fails("six", MANY, |ask, _| {
            let hops = ask.path.matches("/hop").count();
            (ask.file == CONFIG && hops < 6)
                .then(|| vec![Send(head(301, &[("Location", &format!("/{}{CONFIG}", "hop/".repeat(hops + 1)))]))])
        })
        .at_most(7),
        Case::fails(
            "nowhere",
            &["leads nowhere"],
            on(Kind::Info, CONFIG, |ask, world| vec![Send(world.head_of(ask, 302, &[]))]),
        ),
        Case::fails(
            "two places",
            &["two values of location"],
            on(Kind::Info, CONFIG, |_, _| vec![Send(head(302, &[("Location", "/a"), ("Location", "/b")]))]),
        ),
        Case::fails("a file", &["redirect to `file:///etc/passwd`"], to(Kind::Info, "file:///etc/passwd")),
        Case::fails("another scheme", &["redirect"], to(Kind::List, "ftp://127.0.0.1/x")),
        Case::fails("no port", &["redirect"], to(Kind::List, "http://127.0.0.1:99999/x")),
        Case::fails("spaces", &["redirect"], to(Kind::List, "/a b")),
        Case::fails("no host", &["redirect"], to(Kind::List, "///x")),
        Case::fails("not modified", &["status 304"], on(Kind::Info, CONFIG, |_, _| vec![Send(head(304, &[]))])),
        Case::fails(
            "a redirect with an endless body",
            MANY,
            on(Kind::Info, CONFIG, |ask, _| {
                vec![Send(head(302, &[("Location", &ask.path)])), Endless(vec![b' '; 1 << 16], 0)]
            }),
        ),
    ]);
}

#[cfg(unix)]
#[test]
fn what_lies_in_the_cache_leads_nowhere_else() {
    use std::os::unix::fs::symlink;

    fn place(world: &World, path: &str) -> PathBuf {
        let path = world.cache.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }
    fn outside(world: &World) -> PathBuf {
        world.victim.parent().unwrap().to_owned()
    }
    fn blob(world: &World, suffix: &str) -> PathBuf {
        place(world, &format!("models--someone--tiny/blobs/{}{suffix}", world.etag(WEIGHTS)))
    }
    fn pipe(path: &std::path::Path) {
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    }
    const OUT: &[&str] = &["leads out of the cache"];
    let none = |_: &Ask, _: &World| None;
    run_all(vec![
        Case::fails("the model is a link", OUT, none)
            .after(|world| symlink(outside(world), place(world, "models--someone--tiny")).unwrap()),
        Case::fails("the contents are a link", OUT, none)
            .after(|world| symlink(outside(world), place(world, "models--someone--tiny/blobs")).unwrap()),
        Case::fails("the snapshots are a link", OUT, none)
            .after(|world| symlink(outside(world), place(world, "models--someone--tiny/snapshots")).unwrap()),
        Case::fails("the snapshot is a link", OUT, none).after(|world| {
            symlink("../../../outside", place(world, &format!("models--someone--tiny/snapshots/{COMMIT}"))).unwrap();
        }),
        Case::fails("the revisions are a link", OUT, none)
            .after(|world| symlink(outside(world), place(world, "models--someone--tiny/refs")).unwrap()),
        Case::fails("the locks are a link", OUT, none)
            .after(|world| symlink(outside(world), place(world, ".locks")).unwrap()),
        Case::fails("a link to what does not exist", &["model cache"], none)
            .after(|world| symlink(outside(world).join("new"), place(world, "models--someone--tiny/blobs")).unwrap()),
        Case::fails("a file in place of a folder", &["model cache"], none)
            .after(|world| fs::write(place(world, "models--someone--tiny/blobs"), "").unwrap()),
        Case::works("a part is a link", none)
            .after(|world| symlink(&world.victim, blob(world, ".incomplete")).unwrap()),
        Case::works("a part is another name of a file", none)
            .after(|world| fs::hard_link(&world.victim, blob(world, ".incomplete")).unwrap()),
        Case::works("a part is a pipe", none).after(|world| pipe(&blob(world, ".incomplete"))),
        Case::works("a part is too long", none)
            .after(|world| fs::write(blob(world, ".incomplete"), vec![0; 300_001]).unwrap()),
        Case::works("a part is of something else", none)
            .after(|world| fs::write(blob(world, ".incomplete"), vec![0; 100_000]).unwrap()),
        Case::works("a content is a link", none).after(|world| symlink(&world.victim, blob(world, "")).unwrap()),
        Case::works("a content is a pipe", none).after(|world| pipe(&blob(world, ""))),
        Case::works("a file of the snapshot is a link", none).after(|world| {
            symlink(&world.victim, place(world, &format!("models--someone--tiny/snapshots/{COMMIT}/config.json")))
                .unwrap();
        }),
        Case::works("a file of the snapshot is a pipe", none)
            .after(|world| pipe(&place(world, &format!("models--someone--tiny/snapshots/{COMMIT}/model.safetensors")))),
        Case::works("the revision is a link", none)
            .after(|world| symlink(&world.victim, place(world, "models--someone--tiny/refs/main")).unwrap()),
        Case::works("the revision is a pipe", none)
            .after(|world| pipe(&place(world, "models--someone--tiny/refs/main"))),
        Case::works("the lock is a link", none).after(|world| {
            let lock = format!(".locks/models--someone--tiny/{}.lock", world.etag(WEIGHTS));
            symlink(&world.victim, place(world, &lock)).unwrap();
        }),
        Case::works("the lock is a pipe", none).after(|world| {
            pipe(&place(world, &format!(".locks/models--someone--tiny/{}.lock", world.etag(WEIGHTS))));
        }),
        Case::fails("another program has the lock", &["another program is downloading it"], none).after(|world| {
            let lock = place(world, &format!(".locks/models--someone--tiny/{}.lock", world.etag(CONFIG)));
            let file = fs::File::create(lock).unwrap();
            file.try_lock().unwrap();
            // Held until the test's process ends.
            std::mem::forget(file);
        }),
    ]);
}
