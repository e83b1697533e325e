//! A disk that fills up under a working node: puts are refused in so many words, the rest goes on, and so do puts as soon
//! as there is room.
#![allow(clippy::disallowed_methods, reason = "deadlines are of the real clock")]

use std::{
    fs,
    sync::mpsc::sync_channel,
    thread,
    time::{Duration, Instant},
};

use crate::{
    crash::World,
    harness::{
        Setup, disk,
        process::{DEADLINE, eventually},
        tokens::revoke,
    },
};

const DISK_BYTES: u64 = 400 << 20;
const RESERVE_BYTES: u64 = 128 << 20;
/// What the ballast leaves: less than the reserve.
const LEFT_BYTES: u64 = 8 << 20;

#[test]
fn a_full_disk_refuses_puts_until_there_is_room_again() {
    if !disk::is_possible() {
        println_loudly("NOT TESTED: this machine allows no namespaces, so no real process met a full disk");
        return;
    }
    let setup = Setup::default().option("storage.reserve_free_bytes", RESERVE_BYTES).disk(DISK_BYTES);
    let setup = setup.option("retention.superseded_s", 0).option("retention.interval_s", 1);
    let mut world = World::of(setup.start(), 4);
    let (answers, _) = sync_channel(1);
    let work = |world: &mut World| world.work(Instant::now() + Duration::from_millis(300), &answers, |_| ());
    work(&mut world);
    world.check();
    let session = world.session.clone();
    session.put(&world.node, "before", "before").expect(200);
    session.put(&world.node, "gone", "before").expect(200);
    let guest = session.pass_on(&world.node, "before", &["tinycloud.kv/get"]);

    let ballast = world.node.on_disk("ballast");
    let (refused, acknowledged) = thread::scope(|scope| {
        let filling = scope.spawn(|| fill(&ballast));
        let until = Instant::now() + DEADLINE;
        let mut acknowledged = Vec::new();
        let refused = loop {
            assert!(Instant::now() < until, "the disk is never full");
            let number = acknowledged.len();
            let answer = session.put(&world.node, &format!("meanwhile/{number}"), vec![number as u8; 100_000]);
            if answer.status != 200 {
                break answer;
            }
            acknowledged.push(number);
        };
        filling.join().expect("filled");
        (refused, acknowledged)
    });
    assert_eq!((refused.status, refused.code()), (507, Some("disk_full")), "{refused:?}");
    assert!(refused.text().contains("disk is full"), "{refused:?}");
    let large = session.put(&world.node, "large", vec![1; 300_000]);
    assert_eq!((large.status, large.code()), (507, Some("disk_full")), "{large:?}");
    assert_eq!(session.get(&world.node, "before").expect(200).text(), "before");
    session.del(&world.node, "gone").expect(200);
    session.get(&world.node, "gone").expect(404);
    revoke(&world.node, &crate::harness::tokens::revocation(&session.key, guest.delegation())).expect(200);
    world.check();
    assert_eq!(world.node.status()["storage"]["is_short"], true, "{}", world.node.status()["storage"]);

    fs::remove_file(&ballast).expect("removed");
    eventually("there is room again", || session.put(&world.node, "after", "after").status == 200);
    work(&mut world);
    for _ in 0..2 {
        world.check();
        for number in &acknowledged {
            let answer = session.get(&world.node, &format!("meanwhile/{number}")).expect(200);
            assert!(answer.body == vec![*number as u8; 100_000], "value {number}");
        }
        session.get(&world.node, "gone").expect(404);
        assert_eq!(guest.get(&world.node, "before").status, 401, "it was revoked");
        assert_eq!(session.get(&world.node, "after").expect(200).text(), "after");
        world.node.stop();
        world.node.start();
    }
    world.node.stop();
}

/// Takes all room but a little.
fn fill(ballast: &std::path::Path) {
    use std::io::Write as _;
    let stat = |path: &std::path::Path| {
        let stat = rustix::fs::statvfs(path).expect("a file system");
        stat.f_bavail * stat.f_frsize
    };
    let mut file = fs::File::create(ballast).expect("created");
    let zeros = vec![0; 1 << 20];
    while stat(ballast) > LEFT_BYTES {
        file.write_all(&zeros).expect("written");
    }
}

fn println_loudly(words: &str) {
    eprintln!("{0}\n{words}\n{0}", "#".repeat(words.len()));
}
