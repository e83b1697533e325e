//! Wrong input from clients, a test for each kind: it gets its status, code and words, changes nothing and leaves
//! nothing behind.

mod bodies;
mod capabilities;
mod connections;
mod requests;
mod tokens;

use crate::harness::{Node, Owner, Request, Response, Session, Setup, process::eventually, tokens::etag_of};

/// The value that is there before and after.
const KEY: &str = "docs/a";
const VALUE: &[u8] = b"kept";

/// A node with one space and a session that may do everything in it.
struct World {
    node: Node,
    owner: Owner,
    session: Session,
}

impl World {
    fn new() -> Self {
        Self::with(Setup::default())
    }

    fn with(setup: Setup) -> Self {
        let (node, owner) = (setup.start(), Owner::wallet(7));
        let session = owner.open(&node, "default");
        session.put(&node, KEY, VALUE).expect(200);
        Self { node, owner, session }
    }

    /// Does something that must change nothing.
    fn unchanged<T>(&self, act: impl FnOnce() -> T) -> T {
        let before = self.node.state();
        let done = act();
        eventually("no upload is left behind", || self.node.staging().is_empty());
        assert_eq!(self.node.state(), before);
        let kept = self.session.get(&self.node, KEY).expect(200);
        assert_eq!((kept.body.as_slice(), kept.etag()), (VALUE, Some(&*etag_of(VALUE))));
        done
    }

    /// Sends a request that is answered so, and changes nothing.
    #[track_caller]
    fn refuses(&self, request: &Request, status: u16, code: &str) -> Response {
        let answer = self.unchanged(|| self.node.ask(request));
        assert_eq!((answer.status, answer.code()), (status, Some(code)), "{}", answer.text());
        assert!(!answer.text().is_empty() && !answer.text().starts_with('<'), "{answer:?}");
        answer
    }

    /// The same with the words that clients parse.
    #[track_caller]
    fn refuses_with(&self, request: &Request, status: u16, code: &str, words: &str) {
        assert_eq!(self.refuses(request, status, code).text(), words);
    }
}
