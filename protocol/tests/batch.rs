//! How calls fill a batch and a batch becomes durable: conditions, repetition, order, and what ends a call.
mod world;

use std::collections::BTreeMap;

use kvspace_protocol::{
    capability::build::Claims,
    epoch::Epoch,
    id::{EpochId, Incarnation, Millis},
    kv::Condition,
    limits::COMMIT_EVENTS_MAX,
    space::{Refusal, Reply, Write, Written},
};
use world::{
    Draft, Forger, Host, Owner, START_MS, Session, clock, did, event, hash, id, key, put_event, verified, write,
};

/// An owner, a host it names, and a session that the host knows.
fn start() -> (Owner, Host, Session) {
    let owner = Owner::new(1);
    let mut host = Host::hosting(&owner, 2);
    let session = owner.session(3);
    host.take_token(session.delegation.clone()).expect("taken in");
    (owner, host, session)
}

fn put_if(session: &Session, host: &Host, path: &str, bytes: &[u8], condition: Condition) -> Write {
    Write { condition, ..session.put_write(host, path, bytes) }
}

fn written(reply: Option<Result<Reply, Refusal>>) -> Written {
    let Some(Ok(Reply::Written(written))) = reply else { panic!("not written: {reply:?}") };
    written
}

#[test]
fn two_conditional_puts_of_one_batch_see_each_other() {
    let (_, mut host, session) = start();
    host.slow = true;
    host.put_and_wait(&session, "other");
    let first = host.send(put_if(&session, &host, "k", b"one", Condition::Absent));
    let second = host.send(put_if(&session, &host, "k", b"two", Condition::Absent));
    let third = host.send(put_if(&session, &host, "k", b"three", Condition::Matches(hash(b"one"))));
    assert_eq!(host.reply(second), Some(Err(Refusal::Precondition)));
    host.finish_all();
    let (first, third) = (written(host.reply(first)), written(host.reply(third)));
    assert_eq!((first.version.epoch, first.version.event()), (third.version.epoch, 0), "they share an epoch");
    assert_eq!(third.version.event(), 1);
    assert_eq!(host.live("k"), Some(hash(b"three")));
}

#[test]
fn a_delete_and_a_put_if_absent_of_one_batch_both_happen() {
    let (_, mut host, session) = start();
    host.put(&session, "k", b"one").expect("written");
    host.slow = true;
    host.put_and_wait(&session, "other");
    let delete = host.send(session.del_write(&host, "k"));
    let put = host.send(put_if(&session, &host, "k", b"two", Condition::Absent));
    host.finish_all();
    assert_eq!(written(host.reply(delete)).removed, Some(hash(b"one")));
    written(host.reply(put));
    assert_eq!(host.live("k"), Some(hash(b"two")));
}

#[test]
fn a_condition_sees_what_is_in_flight() {
    let (_, mut host, session) = start();
    host.slow = true;
    let flying = host.send(session.put_write(&host, "k", b"one"));
    let absent = host.send(put_if(&session, &host, "k", b"two", Condition::Absent));
    assert_eq!(host.reply(absent), Some(Err(Refusal::Precondition)));
    host.finish_all();
    written(host.reply(flying));
}

#[test]
fn a_delete_of_a_key_that_was_never_written_is_told() {
    let (_, mut host, session) = start();
    assert_eq!(host.delete(&session, "k"), Err(Refusal::NoSuchKey("k".into())));
    host.put(&session, "k", b"one").expect("written");
    host.delete(&session, "k").expect("deleted");
    assert_eq!(host.live("k"), None);
    host.delete(&session, "k").expect("a tombstone may be written again");
}

#[test]
fn a_commit_that_fails_takes_its_whole_batch_along() {
    let (_, mut host, session) = start();
    host.slow = true;
    let flying = session.put_write(&host, "a", b"one");
    let queued = session.put_write(&host, "b", b"two");
    let calls = [host.send(flying.clone()), host.send(queued.clone())];
    host.reopen();
    host.finish_all();
    assert!(calls.iter().all(|call| host.reply(*call).is_none()), "neither was acknowledged");
    assert_eq!(host.entries(), BTreeMap::new());
    host.write(flying).expect("repeated as it was");
    host.write(queued).expect("repeated as it was");
    assert_eq!(host.entries().len(), 2);
}

#[test]
fn a_repeated_call_has_one_outcome_wherever_the_first_one_stands() {
    let (_, mut host, session) = start();
    host.slow = true;
    host.put_and_wait(&session, "other");
    let put = session.put_write(&host, "k", b"one");
    let mut calls = vec![host.send(put.clone()), host.send(put.clone())];
    assert_eq!(host.write(other_value(&put)), Err(Refusal::Duplicate), "queued");
    host.finish();
    calls.push(host.send(put.clone()));
    assert_eq!(host.write(other_value(&put)), Err(Refusal::Duplicate), "in flight");
    host.finish_all();
    assert_eq!(host.write(other_value(&put)), Err(Refusal::Duplicate), "durable");
    calls.push(host.send(put.clone()));
    host.reopen();
    calls.push(host.send(put));
    let outcomes: Vec<_> = calls.into_iter().map(|call| written(host.reply(call))).collect();
    assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "{outcomes:?}");
    assert_eq!(host.operations().keys().filter(|(key, _)| key == "k").count(), 1);
}

fn other_value(put: &Write) -> Write {
    write(put.token.clone(), Some(b"another value"))
}

#[test]
fn a_repeated_delete_names_what_the_first_one_removed() {
    let (_, mut host, session) = start();
    host.put(&session, "k", b"one").expect("written");
    let delete = session.del_write(&host, "k");
    let first = host.write(delete.clone());
    host.put(&session, "k", b"two").expect("written");
    assert_eq!(host.write(delete), first);
    assert_eq!(host.live("k"), Some(hash(b"two")));
}

#[test]
fn a_delegation_and_its_use_may_share_a_batch() {
    let (owner, mut host, session) = start();
    host.slow = true;
    host.put_and_wait(&session, "other");
    let fresh = owner.session(9);
    let (taken, put) = (host.send_token(fresh.delegation.clone(), vec![]), fresh.put_write(&host, "k", b"one"));
    let put = host.send(put);
    let again = host.send_token(fresh.delegation.clone(), vec![]);
    host.finish_all();
    let version = written(host.reply(put)).version;
    assert_eq!(host.reply(taken), Some(Ok(Reply::Taken(version.epoch))));
    assert_eq!(host.reply(again), Some(Ok(Reply::Taken(version.epoch))));
    assert_eq!(host.take_token(fresh.delegation), Ok(Reply::Held));
}

#[test]
fn a_delegation_that_only_another_host_holds_is_put_in_before_its_use() {
    let (owner, mut host, _) = start();
    let session = owner.session(9);
    let deeper = session.delegate(10);
    let mut put = deeper.put_write(&host, "k", b"one");
    put.borrowed = vec![session.delegation.clone(), deeper.delegation.clone()];
    let version = written(Some(host.write(put))).version;
    assert_eq!(version.event(), 2);
    assert_eq!(host.published.len(), 4, "host, session, and the two that were put in");
    assert_eq!(host.take_token(deeper.delegation), Ok(Reply::Held));
}

#[test]
fn a_queued_revocation_stops_what_comes_behind_it() {
    let (owner, mut host, session) = start();
    let generation = host.core.access().generation();
    host.slow = true;
    host.put_and_wait(&session, "other");
    let revoked = host.send_token(owner.revoke(&session.delegation, &[]), vec![]);
    let put = Write { authorized_at: generation, ..session.put_write(&host, "k", b"one") };
    assert!(matches!(host.write(put), Err(Refusal::Denied(_))));
    let again = host.send_token(owner.revoke(&session.delegation, &[]), vec![]);
    assert_eq!(host.reply(again), None, "not before it is durable");
    host.finish_all();
    assert!(matches!(host.reply(revoked), Some(Ok(Reply::Taken(_)))));
    assert_eq!(host.reply(again).expect("answered").map(|_| ()), Ok(()));
}

#[test]
fn a_revocation_that_arrives_from_outside_stops_what_is_queued() {
    let (owner, mut host, session) = start();
    let mut other = Host::hosting(&owner, 5);
    other.receive(host.log.clone());
    other.take_token(owner.revoke(&session.delegation, &[])).expect("revoked");
    let stays = owner.session(9);
    host.take_token(stays.delegation.clone()).expect("taken in");
    host.slow = true;
    host.put_and_wait(&stays, "other");
    let lost = host.send(session.put_write(&host, "k", b"lost"));
    let behind = host.send(put_if(&stays, &host, "k", b"two", Condition::Matches(hash(b"lost"))));
    let kept = host.send(stays.put_write(&host, "k2", b"kept"));
    host.receive(other.log.clone());
    host.finish_all();
    assert!(matches!(host.reply(lost), Some(Err(Refusal::Denied(_)))));
    assert_eq!(host.reply(behind), Some(Err(Refusal::Precondition)), "what it was to replace never came");
    written(host.reply(kept));
}

#[test]
fn every_revocation_of_a_delegation_is_logged() {
    let (owner, mut host, session) = start();
    host.put(&session, "k", b"good").expect("written");
    let seen = host.frontier();
    host.put(&session, "k", b"forged by a thief").expect("written");
    let own = world::revocation(&session.key, &owner.space, &session.delegation, &[], vec![]);
    host.take_token(own).expect("a delegatee gives up its own");
    assert_eq!(host.live("k"), Some(hash(b"forged by a thief")), "that voids nothing");
    let first = owner.revoke(&session.delegation, &host.frontier());
    host.take_token(first.clone()).expect("revoked");
    let second = owner.revoke(&session.delegation, &seen);
    assert!(matches!(host.take_token(second.clone()), Ok(Reply::Taken(_))));
    assert_eq!(host.live("k"), Some(hash(b"good")));
    assert_eq!(host.take_token(second), Ok(Reply::Held));
    assert_eq!(host.take_token(first), Ok(Reply::Held));
}

#[test]
fn authority_of_an_older_generation_is_judged_again() {
    let (owner, mut host, session) = start();
    let put = Write { authorized_at: host.core.access().generation(), ..session.put_write(&host, "k", b"one") };
    host.take_token(owner.revoke(&session.delegation, &[])).expect("revoked");
    assert!(matches!(host.write(put), Err(Refusal::Denied(_))));
}

#[test]
fn a_session_that_ended_during_a_long_upload_writes_nothing() {
    let (owner, mut host, session) = start();
    let mut claims = owner.claims();
    claims.audience = Some(did(&session.key));
    claims.capabilities.insert(format!("{}/kv", owner.space), vec!["tinycloud.kv/put".into()]);
    claims.expiry = Millis(START_MS + 10_000);
    let short = Session { delegation: verified(&claims, &owner.key), ..session.clone() };
    host.take_token(short.delegation.clone()).expect("taken in");
    let token = short.invocation("k", "put", START_MS + 300_000, &[]);
    let generation = host.core.access().generation();
    host.wait(10_001);
    let put = Write { authorized_at: generation, ..write(token.clone(), Some(b"one")) };
    assert!(matches!(host.write(put), Err(Refusal::Denied(_))));
    host.wait(120_000);
    assert!(matches!(host.write(write(token, Some(b"one"))), Err(Refusal::Denied(_))));
    host.put(&session, "k", b"two").expect("the space goes on");
}

#[test]
fn a_delegation_beside_an_expired_one_is_refused_and_the_space_goes_on() {
    let (owner, mut host, session) = start();
    let mut claims = owner.claims();
    claims.audience = Some(did(&session.key));
    claims.capabilities.insert(format!("{}/kv", owner.space), vec!["tinycloud.kv/put".into()]);
    claims.expiry = Millis(START_MS + 1000);
    let short = verified(&claims, &owner.key);
    host.take_token(short.clone()).expect("taken in");
    host.wait(120_000);
    let mut claims = Claims::until(Millis(START_MS + 3_600_000));
    claims.audience = Some(did(&key(20)));
    claims.capabilities.insert(format!("{}/kv", owner.space), vec!["tinycloud.kv/put".into()]);
    claims.proofs = vec![short.address(), session.delegation.address()];
    assert_eq!(host.take_token(verified(&claims, &session.key)), Err(Refusal::Expired));
    host.put(&session, "k", b"one").expect("the space goes on");
}

#[test]
fn an_expired_delegation_may_still_be_revoked() {
    let (owner, mut host, session) = start();
    let mut claims = owner.claims();
    claims.audience = Some(did(&key(20)));
    claims.capabilities.insert(format!("{}/kv", owner.space), vec!["tinycloud.kv/put".into()]);
    claims.expiry = Millis(START_MS + 1000);
    let short = verified(&claims, &owner.key);
    host.wait(120_000);
    host.slow = true;
    host.put_and_wait(&session, "other");
    let call = host.send_token(owner.revoke(&short, &[]), vec![short.clone()]);
    let again = host.send_token(short, vec![]);
    host.finish_all();
    let replies = [host.reply(call), host.reply(again)];
    assert!(replies.iter().all(|reply| matches!(reply, Some(Ok(Reply::Taken(_))))), "{replies:?}");
    host.put(&session, "k", b"one").expect("the space goes on");
}

#[test]
fn a_token_that_names_an_unknown_epoch_waits_for_it() {
    let (owner, mut host, session) = start();
    let unknown = EpochId::of(b"unknown");
    let put = write(session.invocation("k", "put", START_MS + 60_000, &[unknown]), Some(b"one"));
    assert_eq!(host.write(put), Err(Refusal::Behind(vec![unknown])));
    assert_eq!(host.take_token(owner.revoke(&session.delegation, &[unknown])), Err(Refusal::Behind(vec![unknown])));
    let mut claims = owner.claims();
    claims.audience = Some(did(&key(30)));
    claims.capabilities.insert(format!("{}/space", owner.space), vec!["tinycloud.space/host".into()]);
    claims.after = vec![format!("{}/after/{unknown}", owner.space)];
    let mut fresh = Host::new(&owner, 30);
    let creates = verified(&claims, &owner.key);
    assert_eq!(fresh.take_token(creates), Err(Refusal::Behind(vec![unknown])), "also when it creates the space");
}

#[test]
fn the_owner_s_own_key_hosts_without_a_proof() {
    let owner = Owner::new(1);
    let mut host = Host::owner(&owner);
    let session = owner.session(3);
    host.take_token(session.delegation.clone()).expect("taken in");
    host.put(&session, "k", b"one").expect("written");
    assert!(host.log.iter().all(|epoch| Epoch::decode_unsigned(epoch.clone()).expect("ours").header.proof.is_none()));
    let mut other = Host::hosting(&owner, 5);
    other.receive(host.log.clone());
    assert_eq!((other.live("k"), other.refused.len()), (Some(hash(b"one")), 0));
}

#[test]
fn a_node_that_no_one_named_or_that_was_removed_takes_nothing() {
    let owner = Owner::new(1);
    let mut stranger = Host::new(&owner, 2);
    let session = owner.session(3);
    assert_eq!(stranger.take_token(session.delegation.clone()), Err(Refusal::NotHost));
    let (_, mut host, session) = start();
    let delegation = owner.host_delegation(&host.did());
    host.slow = true;
    host.put_and_wait(&session, "other");
    let before = host.send(session.put_write(&host, "before", b"one"));
    let removal = host.send_token(owner.revoke(&delegation, &[]), vec![]);
    assert_eq!(host.put(&session, "k", b"one"), Err(Refusal::NotHost));
    host.finish_all();
    assert!(matches!(host.reply(removal), Some(Ok(Reply::Taken(_)))), "it carries its own removal");
    written(host.reply(before));
    assert_eq!(host.live("before"), Some(hash(b"one")));
    assert_eq!(host.put(&session, "k", b"one"), Err(Refusal::NotHost));
    assert_eq!(host.take_token(delegation), Ok(Reply::Held), "which does not bring it back");
    assert_eq!(host.put(&session, "k", b"one"), Err(Refusal::NotHost));
}

#[test]
fn a_host_whose_clock_is_a_minute_behind_commits_nothing() {
    let (owner, mut host, session) = start();
    let other = Forger::new(&owner, 7);
    let named = owner.host_delegation(&other.did());
    let last = clock(START_MS + 60_000) | 0xffff;
    let ahead = other.epoch(Draft { seq: last, events: vec![event(&named)], ..Draft::default() });
    host.slow = true;
    host.put_and_wait(&session, "other");
    let queued = host.send(session.put_write(&host, "k", b"one"));
    host.receive([ahead]);
    host.finish();
    assert_eq!(host.reply(queued), Some(Err(Refusal::Clock)));
    host.finish_all();
    assert_eq!(host.put(&session, "k", b"one"), Err(Refusal::Clock));
    host.wait(1);
    let version = written(Some(host.put(&session, "k", b"one"))).version;
    assert_eq!(version.seq, last + 1, "the counter carries into the milliseconds");
}

#[test]
fn a_delegation_that_the_clock_holds_up_is_taken_in_when_it_may() {
    let (owner, mut host, session) = start();
    let other = Forger::new(&owner, 7);
    let named = owner.host_delegation(&other.did());
    let seq = clock(START_MS + 60_000) | 0xffff;
    let ahead = other.epoch(Draft { seq, events: vec![event(&named)], ..Draft::default() });
    host.slow = true;
    host.put_and_wait(&session, "other");
    let queued = host.send_token(owner.session(8).delegation, vec![]);
    host.receive([ahead]);
    host.finish();
    host.finish_all();
    assert_eq!((host.reply(queued), host.core.poll_timeout()), (None, Some(Millis(START_MS + 1))));
    host.wait(1);
    assert!(matches!(host.reply(queued), Some(Ok(Reply::Taken(_)))));
    assert_eq!(host.core.poll_timeout(), None);
}

#[test]
fn a_long_queue_goes_into_several_epochs_in_its_order() {
    let (_, mut host, session) = start();
    host.slow = true;
    host.put_and_wait(&session, "other");
    let calls: Vec<_> =
        (0..2 * COMMIT_EVENTS_MAX + 1).map(|_| host.send(session.put_write(&host, "k", b"one"))).collect();
    host.finish_all();
    let versions: Vec<_> = calls.into_iter().map(|call| written(host.reply(call)).version).collect();
    assert!(versions.windows(2).all(|pair| pair[0] < pair[1]));
    let starts: Vec<_> = versions.iter().filter(|version| version.event() == 0).collect();
    assert_eq!(starts.len(), 3, "an epoch is full and another one begins");
}

#[test]
fn a_body_never_outgrows_the_protocol() {
    let (_, mut host, session) = start();
    host.slow = true;
    host.put_and_wait(&session, "other");
    // The most that headers can cost beside their text: as many as there are short names.
    let letters = || 'a'..='z';
    let names = letters().flat_map(|a| letters().flat_map(move |b| letters().map(move |c| format!("{a}{b}{c}"))));
    let meta: BTreeMap<String, String> = names.take(8 * 1024 / 3).map(|name| (name, String::new())).collect();
    let send = |host: &mut Host| {
        let mut put = session.put_write(host, "k", b"one");
        put.value.as_mut().expect("a put").meta.clone_from(&meta);
        host.send(put)
    };
    let calls: Vec<_> = (0..500).map(|_| send(&mut host)).collect();
    host.finish_all();
    for call in calls {
        written(host.reply(call));
    }
    let mut put = session.put_write(&host, "k", b"one");
    put.value.as_mut().expect("a put").meta.insert("long".into(), "x".repeat(8 * 1024));
    assert_eq!(host.write(put), Err(Refusal::Content));
}

#[test]
fn a_batch_stands_on_all_that_is_held_however_many_heads_there_are() {
    let (owner, mut host, session) = start();
    let other = Forger::new(&owner, 7);
    let named = owner.host_delegation(&other.did());
    let head = |incarnation| {
        other.epoch(Draft { incarnation, seq: clock(START_MS), events: vec![event(&named)], ..Draft::default() })
    };
    let heads: Vec<_> = (0..200).map(head).collect();
    host.receive(heads.clone());
    assert_eq!(host.frontier().len(), 201);
    let after: Vec<_> = heads.iter().map(id).collect();
    let put = write(session.invocation("k", "put", START_MS + 60_000, &after), Some(b"one"));
    let version = written(Some(host.write(put))).version;
    assert_eq!(host.frontier(), [version.epoch]);
    let mut mirror = Host::hosting(&owner, 5);
    mirror.receive(host.log.clone());
    assert_eq!((mirror.live("k"), mirror.refused.len()), (Some(hash(b"one")), 0));
}

#[test]
fn a_space_opened_in_the_same_incarnation_goes_on_with_its_chain() {
    let (_, mut host, session) = start();
    host.open(Incarnation([2; 8]));
    host.put(&session, "k", b"one").expect("written");
    let last = Epoch::decode_unsigned(host.log.last().expect("an epoch").clone()).expect("ours").header;
    assert_eq!((last.n, last.prev), (2, Some(id(&host.log[1]))));
    assert!(host.core.dag().forks().is_empty());
}

#[test]
fn a_token_that_a_host_hid_in_the_past_is_written_when_it_is_sent_again() {
    let (owner, mut host, session) = start();
    let token = session.invocation("k", "put", START_MS + 60_000, &[]);
    let thief = Forger::new(&owner, 7);
    let events =
        vec![event(&owner.host_delegation(&thief.did())), event(&session.delegation), put_event(&token, b"one")];
    let hidden = thief.epoch(Draft { seq: clock(START_MS - 400_000), events, ..Draft::default() });
    host.receive([hidden]);
    host.put(&session, "k", b"in between").expect("written");
    let version = written(Some(host.write(write(token, Some(b"one"))))).version;
    assert!(version.time() >= Millis(START_MS));
    assert_eq!(host.live("k"), Some(hash(b"one")));
}

#[test]
fn a_space_takes_no_more_delegations_than_fit_in_memory_and_still_takes_what_ends_them() {
    let (owner, mut host, session) = start();
    let padding = "x".repeat(40_000);
    let delegation = |number: usize| {
        let mut claims = Claims::until(Millis(START_MS + 86_400_000));
        claims.audience = Some(did(&key(9)));
        claims.facts = vec![serde_json::json!({ "padding": padding, "number": number })];
        claims.capabilities.insert(format!("{}/kv", owner.space), vec!["tinycloud.kv/get".into()]);
        verified(&claims, &owner.key)
    };
    let taken = (0..).take_while(|number| match host.take_token(delegation(*number)) {
        Ok(Reply::Taken(_)) => true,
        Err(Refusal::Full) => false,
        other => panic!("{other:?}"),
    });
    let taken = taken.count();
    // Each is 40,000 bytes and what base64 adds.
    assert!((1_200..1_300).contains(&taken), "{taken}");
    assert!(matches!(host.take_token(owner.revoke(&delegation(0), &[])), Ok(Reply::Taken(_))));
    assert!(matches!(host.take_token(delegation(1)), Ok(Reply::Held)));
    host.put(&session, "k", b"still").expect("written");
}

/// An epoch of another host at the furthest time that is taken in at `now_ms`.
fn far_ahead(owner: &Owner, now_ms: i64) -> kvspace_protocol::epoch::SignedEpoch {
    let other = Forger::new(owner, 7);
    let events = vec![event(&owner.host_delegation(&other.did()))];
    other.epoch(Draft { seq: clock(now_ms + 59_990), events, ..Draft::default() })
}

#[test]
fn what_an_arriving_clock_makes_too_late_is_refused_alone() {
    let (owner, mut host, session) = start();
    let ended = owner.session(8);
    host.take_token(ended.delegation.clone()).expect("taken in");
    host.slow = true;
    host.put_and_wait(&session, "other");
    let mut claims = Claims::until(Millis(START_MS + 50));
    let revoke = vec!["tinycloud.delegation/revoke".into()];
    claims.capabilities.insert(format!("urn:cid:{}", ended.delegation.address()), revoke);
    let revocation = host.send_token(verified(&claims, &owner.key), vec![]);
    let late = host.send(write(session.invocation("late", "put", START_MS + 50, &[]), Some(b"one")));
    let kept = host.send(session.put_write(&host, "kept", b"two"));
    host.now_ms += 200;
    host.receive([far_ahead(&owner, host.now_ms)]);
    host.finish_all();
    assert_eq!(host.reply(late), Some(Err(Refusal::Expired)));
    assert_eq!(host.reply(revocation), Some(Err(Refusal::Expired)));
    written(host.reply(kept));
    host.put(&ended, "k", b"three").expect("what was not logged ended nothing");
    host.take_token(owner.revoke(&ended.delegation, &[])).expect("revoked");
    assert!(matches!(host.put(&ended, "k", b"four"), Err(Refusal::Denied(_))));
}

#[test]
fn a_queued_revocation_stays_when_another_arrives() {
    let (owner, mut host, session) = start();
    let (one, other) = (owner.session(8), owner.session(9));
    for session in [&one, &other] {
        host.take_token(session.delegation.clone()).expect("taken in");
    }
    host.slow = true;
    host.put_and_wait(&session, "other");
    let revocation = host.send_token(owner.revoke(&one.delegation, &[]), vec![]);
    let peer = Forger::new(&owner, 7);
    let events = [&owner.host_delegation(&peer.did()), &other.delegation, &owner.revoke(&other.delegation, &[])];
    host.receive([peer.epoch(Draft { seq: clock(host.now_ms), events: events.map(event).into(), ..Draft::default() })]);
    host.finish_all();
    assert!(matches!(host.reply(revocation), Some(Ok(Reply::Taken(_)))), "{:?}", host.reply(revocation));
    for ended in [&one, &other] {
        assert!(matches!(host.put(ended, "k", b"three"), Err(Refusal::Denied(_))));
    }
}

#[test]
fn what_is_queued_when_the_host_s_own_delegation_ends_is_refused() {
    let owner = Owner::new(1);
    let mut host = Host::new(&owner, 2);
    let named = |until_ms| {
        let mut claims = Claims::until(Millis(START_MS + until_ms));
        claims.audience = Some(did(&key(2)));
        claims.capabilities.insert(format!("{}/space", owner.space), vec!["tinycloud.space/host".into()]);
        verified(&claims, &owner.key)
    };
    host.take_token(named(50)).expect("the space is created");
    let (session, fresh) = (owner.session(3), owner.session(8));
    host.take_token(session.delegation.clone()).expect("taken in");
    host.slow = true;
    host.put_and_wait(&session, "other");
    let calls = [host.send(session.put_write(&host, "k", b"one")), host.send_token(fresh.delegation.clone(), vec![])];
    host.now_ms += 200;
    host.receive([far_ahead(&owner, host.now_ms)]);
    host.finish_all();
    assert!(calls.iter().all(|call| host.reply(*call) == Some(Err(Refusal::NotHost))));
    host.take_token(named(3_600_000)).expect("it is named again");
    let put = Write { borrowed: vec![fresh.delegation.clone()], ..fresh.put_write(&host, "k", b"two") };
    written(Some(host.write(put)));
}

#[test]
fn what_was_queued_before_the_host_s_own_delegation_ended_is_written_within_the_grace() {
    let owner = Owner::new(1);
    let mut host = Host::new(&owner, 2);
    let mut claims = Claims::until(Millis(START_MS + 50));
    claims.audience = Some(did(&key(2)));
    claims.capabilities.insert(format!("{}/space", owner.space), vec!["tinycloud.space/host".into()]);
    host.take_token(verified(&claims, &owner.key)).expect("the space is created");
    let session = owner.session(3);
    host.take_token(session.delegation.clone()).expect("taken in");
    host.slow = true;
    host.put_and_wait(&session, "other");
    let queued = host.send(session.put_write(&host, "k", b"one"));
    host.now_ms += 200;
    host.finish_all();
    written(host.reply(queued));
    assert_eq!(host.put(&session, "k", b"two"), Err(Refusal::NotHost));
}
