//! Values too large for the log, from host to host.

use std::{fs, path::PathBuf, thread};

use super::bytes;
use crate::harness::{
    Cluster, Node,
    cluster::{after, epoch},
    is_long,
    process::{eventually, files},
    tokens::{GET, etag_of},
};

/// The bytes of all large values of a node, whole or on their way.
fn fetched(node: &Node) -> u64 {
    let sizes =
        files(&node.data_dir().join("blobs")).into_iter().filter_map(|file| Some(fs::metadata(file).ok()?.len()));
    sizes.sum()
}

/// The file of a value.
fn file_of(node: &Node, value: &[u8]) -> PathBuf {
    let hash = blake3::hash(value).to_hex();
    node.data_dir().join("blobs").join(&hash[..2]).join(hash.as_str())
}

#[test]
fn a_large_value_comes_from_two_hosts_of_which_one_is_killed() {
    let length = if is_long() { 256 << 20 } else { 16 << 20 };
    let mut cluster = Cluster::with(3, |_, setup| setup.option("network.pending_wait_ms", 60_000));
    let value = bytes(length, 7);
    cluster.hosts[2].stop();
    let written = cluster.session.put(&cluster.hosts[0], "large", value.clone()).expect(200);
    let elsewhere = cluster.get_after(1, "large", &epoch(&written)).expect(200);
    assert_eq!(elsewhere.etag(), Some(&*etag_of(&value)));
    drop(elsewhere);
    cluster.hosts[2].start();
    let read = after(cluster.session.invoke(GET, "large"), &epoch(&written));
    let [first, _, third] = &mut cluster.hosts[..] else { unreachable!("three were started") };
    thread::scope(|scope| {
        let third = &*third;
        let reading = scope.spawn(move || third.ask(&read));
        eventually("a half is there", || fetched(third) >= length as u64 / 2 || reading.is_finished());
        first.kill();
        let answer = reading.join().expect("no panic").expect(200);
        assert!(answer.body == value, "{answer:?}");
    });
    cluster.hosts[0].start();
    cluster.agree();
}

#[test]
fn a_fetch_goes_on_after_a_restart() {
    let mut cluster = Cluster::with(2, |_, setup| setup.option("network.pending_wait_ms", 60_000));
    let value = bytes(24 << 20, 8);
    cluster.hosts[1].stop();
    let written = cluster.session.put(&cluster.hosts[0], "large", value.clone()).expect(200);
    cluster.hosts[1].start();
    eventually("some of it is there", || fetched(&cluster.hosts[1]) > 0);
    cluster.hosts[1].kill();
    cluster.hosts[1].start();
    // Nobody asks for the value: that it is wanted was not forgotten.
    let file = file_of(&cluster.hosts[1], &value);
    eventually("it is fetched", || fs::metadata(&file).is_ok_and(|file| file.len() == value.len() as u64));
    assert!(cluster.get_after(1, "large", &epoch(&written)).expect(200).body == value);
    assert!(cluster.hosts[1].staging().is_empty(), "{:?}", cluster.hosts[1].staging());
}

#[test]
fn a_value_whose_bytes_nobody_gives_is_gone_or_on_its_way() {
    let mut cluster = Cluster::with(3, |_, setup| setup.option("network.pending_wait_ms", 300));
    let value = bytes(1 << 20, 9);
    cluster.hosts[2].stop();
    cluster.session.put(&cluster.hosts[0], "large", "what was before").expect(200);
    let written = cluster.session.put(&cluster.hosts[0], "large", value.clone()).expect(200);
    eventually("it is there", || cluster.get_after(1, "large", &epoch(&written)).status == 200);
    // The two that have it do not find it for a while.
    let files: Vec<_> = cluster.hosts[..2].iter().map(|host| file_of(host, &value)).collect();
    let aside = |file: &PathBuf| file.with_extension("aside");
    files.iter().for_each(|file| fs::rename(file, aside(file)).expect("it is there"));
    cluster.hosts[2].start();
    // Once both have said so, nobody is left who could bring it …
    eventually("nobody has it", || cluster.get_after(2, "large", &epoch(&written)).code() == Some("blob_gone"));
    cluster.part(&[2], &[0, 1]);
    // … but who is away may come with it.
    eventually("they are away", || cluster.get_after(2, "large", &epoch(&written)).code() == Some("blob_pending"));
    let answer = cluster.get_after(2, "large", &epoch(&written)).expect(503);
    assert!(answer.header("retry-after").is_some());
    let explained = cluster.explain(&cluster.hosts[2], "large");
    assert_eq!(explained["operations"][0]["bytes"]["state"], "pending", "{explained}");
    assert_eq!(explained["operations"][0]["standing"]["state"], "wins");
    files.iter().for_each(|file| fs::rename(aside(file), file).expect("it is there"));
    cluster.heal();
    eventually("it is fetched", || cluster.session.get(&cluster.hosts[2], "large").status == 200);
    cluster.agree();
}

#[test]
fn an_inline_value_that_did_not_come_with_its_epoch_is_fetched() {
    let mut cluster = Cluster::of(2);
    cluster.hosts[1].stop();
    // More than one answer holds.
    for number in 0..24 {
        cluster.session.put(&cluster.hosts[0], &format!("k/{number}"), bytes(250_000, number)).expect(200);
    }
    cluster.hosts[1].start();
    cluster.converge();
    for number in 0..24 {
        let key = format!("k/{number}");
        eventually("it is there", || cluster.session.get(&cluster.hosts[1], &key).status == 200);
        assert!(cluster.session.get(&cluster.hosts[1], &key).body == bytes(250_000, number), "{key}");
    }
    cluster.hosts[1].stop();
    cluster.hosts[1].start();
    assert!(cluster.session.get(&cluster.hosts[1], "k/3").body == bytes(250_000, 3));
}
