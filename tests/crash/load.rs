//! Clients of a node that may end at any moment, and what they know of it.
#![allow(clippy::disallowed_methods, reason = "deadlines are of the real clock")]

use std::{collections::BTreeMap, sync::mpsc::SyncSender, time::Instant};

use ed25519_dalek::SigningKey;
use kvspace_client::Token;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::harness::{
    Connection, Request, Session, Statement, post,
    tokens::{DEL, GET, LIST, PUT, did, etag_of, new_key, revocation},
};

/// So few that most writes are overwrites.
const KEYS_PER_WRITER: u64 = 5;

/// What a writer did to a key: put the value of this number, or deleted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Put(u64),
    Delete,
}

/// What is known of a key from outside.
#[derive(Debug, Clone, Default)]
struct Known {
    /// The last act that was acknowledged.
    acknowledged: Option<Act>,
    /// An act that was sent after it and never answered, and the request it was sent with.
    open: Option<(Act, Request)>,
}

impl Known {
    /// The values that may be there now; `None` is no value.
    fn possible(&self) -> Vec<Option<u64>> {
        let value = |act: Option<Act>| match act {
            Some(Act::Put(number)) => Some(number),
            Some(Act::Delete) | None => None,
        };
        let mut possible = vec![value(self.acknowledged)];
        possible.extend(self.open.as_ref().map(|(act, _)| value(Some(*act))));
        possible
    }
}

/// Somebody whom a writer lets read, and what is known of that.
struct Guest {
    key: SigningKey,
    delegation: Token,
    standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Asked,
    May,
    Ending,
    Ended,
}

/// One writer, its keys, and what it knows of them. It waits for each answer, so at most one of its acts is open.
pub(crate) struct Writer {
    random: StdRng,
    session: Session,
    id: u64,
    next: u64,
    keys: BTreeMap<String, Known>,
    guests: Vec<Guest>,
}

/// The value of a number: it says what it is, so that no part of another can pass for it.
pub(crate) fn value(number: u64) -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(number);
    let length = match random.random_range(0..20) {
        0 | 1 => random.random_range(256 * 1024 + 1..600 * 1024),
        2..6 => random.random_range(150_000..250_000),
        _ => random.random_range(0..2000),
    };
    let mut value = format!("value {number};").into_bytes();
    let start = value.len();
    value.resize(start + length, 0);
    blake3::Hasher::new().update(&number.to_be_bytes()).finalize_xof().fill(&mut value[start..]);
    value
}

impl Writer {
    pub(crate) fn new(id: u64, seed: u64, session: Session) -> Self {
        let (keys, guests) = (BTreeMap::new(), Vec::new());
        Self { random: StdRng::seed_from_u64(seed ^ id), session, id, next: 0, keys, guests }
    }

    /// Writes until the node is gone, or until then.
    pub(crate) fn work(&mut self, mut connection: Connection, answers: &SyncSender<()>, until: Instant) {
        while Instant::now() < until {
            let answered = match self.random.random_range(0..15) {
                0 => self.change_guest(&mut connection),
                _ => self.write(&mut connection),
            };
            if answered.is_none() {
                return;
            }
            // Nobody counts any more once the node is killed.
            let _counted = answers.try_send(());
        }
    }

    /// One write and its answer; `None` if there is none.
    fn write(&mut self, connection: &mut Connection) -> Option<()> {
        let key = format!("w{}/{}", self.id, self.random.random_range(0..KEYS_PER_WRITER));
        let known = self.keys.entry(key.clone()).or_default();
        let (act, mut request) = if known.acknowledged.is_some() && self.random.random_range(0..5) == 0 {
            (Act::Delete, self.session.invoke(DEL, &key))
        } else {
            self.next += 1;
            let number = self.id << 32 | self.next;
            (Act::Put(number), self.session.invoke(PUT, &key).body(value(number)))
        };
        if self.random.random_range(0..3) == 0 {
            request = match known.acknowledged {
                Some(Act::Put(number)) => request.header("if-match", etag_of(&value(number))),
                // A delete demands something that is there, or nothing.
                Some(Act::Delete) | None if act == Act::Delete => request,
                Some(Act::Delete) | None => request.header("if-none-match", "*"),
            };
        }
        known.open = Some((act, request.clone()));
        let answer = connection.try_ask(&request).ok()?;
        assert_eq!(answer.status, 200, "{key} {act:?}: {answer:?}");
        *known = Known { acknowledged: Some(act), open: None };
        Some(())
    }

    /// Lets somebody read, or nobody any more.
    fn change_guest(&mut self, connection: &mut Connection) -> Option<()> {
        if self.guests.last().is_none_or(|guest| guest.standing == Standing::Ended) {
            let key = new_key();
            let mut statement = Statement::of(self.session.kv(&format!("w{}", self.id)), &[GET])
                .to(&did(&key))
                .resting_on(self.session.delegation());
            statement.expiry = self.session.delegation().expiry();
            let delegation = statement.sign(&self.session.key);
            self.guests.push(Guest { key, delegation, standing: Standing::Asked });
        }
        let guest = self.guests.last_mut()?;
        let (request, then) = if guest.standing == Standing::Asked {
            (post("/delegate").token(guest.delegation.to_header()), Standing::May)
        } else {
            guest.standing = Standing::Ending;
            let revocation = revocation(&self.session.key, &guest.delegation);
            (post("/revoke").token(revocation.to_header()), Standing::Ended)
        };
        connection.try_ask(&request).ok()?.expect(200);
        guest.standing = then;
        Some(())
    }

    /// Compares what the node has with what is known, and settles what is open by sending it again.
    pub(crate) fn check(&mut self, connection: &mut Connection) {
        for (key, known) in &mut self.keys {
            let found = read(connection, &self.session, key);
            assert!(known.possible().contains(&found), "{key} holds {found:x?}, known is {known:x?}");
            let Some((act, request)) = known.open.take() else { continue };
            let answer = connection.ask(&request);
            let outcome = match act {
                Act::Put(number) => {
                    assert_eq!((answer.status, answer.etag()), (200, Some(&*etag_of(&value(number)))), "{answer:?}");
                    Some(number)
                }
                Act::Delete => {
                    assert_eq!(answer.status, 200, "{answer:?}");
                    None
                }
            };
            assert_eq!(read(connection, &self.session, key), outcome, "{key}");
            known.acknowledged = Some(act);
        }
        let list = self.session.invoke(LIST, &format!("w{}/", self.id));
        let is_put = |known: &Known| matches!(known.acknowledged, Some(Act::Put(_)));
        let live: Vec<_> = self.keys.iter().filter(|(_, known)| is_put(known)).map(|(key, _)| key.clone()).collect();
        assert_eq!(connection.ask(&list).keys(), live);
        for guest in &mut self.guests {
            let session =
                Session { key: guest.key.clone(), delegation: Some(guest.delegation.clone()), ..self.session.clone() };
            let answer = connection.ask(&session.invoke(GET, &format!("w{}/0", self.id)));
            guest.standing = match (guest.standing, answer.status) {
                (Standing::Asked | Standing::May | Standing::Ending, 200 | 404) => Standing::May,
                (Standing::Ending | Standing::Ended, 401 | 403) => Standing::Ended,
                (Standing::Asked, 401 | 403) => Standing::Asked,
                (known, _) => panic!("a guest of {}: {known:?}, but {answer:?}", self.id),
            };
        }
    }

    /// What the node answers for all this writer knows of.
    pub(crate) fn answers(&self, connection: &mut Connection) -> Vec<String> {
        let mut answers = vec![format!("{:?}", connection.ask(&self.session.invoke(LIST, "")).keys())];
        for key in self.keys.keys() {
            let answer = connection.ask(&self.session.invoke(GET, key));
            answers.push(format!("{key} {} {:?}", answer.status, answer.etag()));
        }
        answers
    }
}

/// The number of the value at a key, which must be whole.
fn read(connection: &mut Connection, session: &Session, key: &str) -> Option<u64> {
    let answer = connection.ask(&session.invoke(GET, key));
    if answer.status == 404 {
        return None;
    }
    assert_eq!((answer.status, answer.etag()), (200, Some(&*etag_of(&answer.body))), "{key}: {answer:?}");
    let words = String::from_utf8_lossy(&answer.body[..answer.body.len().min(40)]).into_owned();
    let number = words.strip_prefix("value ").and_then(|rest| rest.split(';').next()?.parse().ok());
    let number = number.unwrap_or_else(|| panic!("{key} holds what nobody sent: {words}"));
    assert!(answer.body == value(number), "{key} holds a part of {number:x}");
    Some(number)
}
