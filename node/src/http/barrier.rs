//! Waiting until this host has what a request names: `x-kvspace-after` and `x-kvspace-wait-ms`.

use std::{collections::BTreeSet, time::Duration};

use kvspace_actors::node::Node;
use kvspace_protocol::id::{EpochId, SpaceId};
use warp::http::HeaderMap;

use super::{
    error::{Call, HttpError},
    headers::{self, X_KVSPACE_AFTER, X_KVSPACE_WAIT_MS},
};

/// Epochs that one request may name.
const EPOCHS_MAX: usize = 16;
/// How long is waited if the request does not say.
const WAIT_MS: u64 = 5_000;
/// The longest wait.
const WAIT_MS_MAX: u64 = 60_000;

/// What is to be held here before a request is answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Barrier {
    epochs: Vec<EpochId>,
    wait: Duration,
}

impl Barrier {
    /// Reads the headers; `None` when the request takes what is here.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Option<Self>, HttpError> {
        let wait = wait(headers)?;
        let mut epochs = BTreeSet::new();
        for value in headers.get_all(X_KVSPACE_AFTER) {
            let list = value.to_str().map_err(|_| malformed())?;
            for epoch in list.split(',').map(str::trim) {
                epochs.insert(epoch.parse().map_err(|_| malformed())?);
            }
            if epochs.len() > EPOCHS_MAX {
                return Err(malformed());
            }
        }
        Ok((!epochs.is_empty()).then(|| Self { epochs: epochs.into_iter().collect(), wait }))
    }

    /// Waits; the error names what is still missing.
    pub(crate) async fn pass(&self, node: &Node, space: &SpaceId) -> Result<(), HttpError> {
        let waited = node.wait_for(space, &self.epochs, self.wait).await;
        waited.map_err(|error| HttpError::node(Call::Invoke, &error))
    }
}

fn wait(headers: &HeaderMap) -> Result<Duration, HttpError> {
    let Some(text) = headers::single_text(headers, &X_KVSPACE_WAIT_MS)? else {
        return Ok(Duration::from_millis(WAIT_MS));
    };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let wait_ms = text.parse().ok().filter(|wait_ms| digits && *wait_ms <= WAIT_MS_MAX);
    let words = "x-kvspace-wait-ms is a number of milliseconds from 0 to 60000";
    wait_ms.map(Duration::from_millis).ok_or_else(|| HttpError::bad_request("wait_malformed", words))
}

fn malformed() -> HttpError {
    let words = "x-kvspace-after names 1 to 16 epochs, as x-kvspace-frontier spells them, with commas between";
    HttpError::bad_request("after_malformed", words)
}

#[cfg(test)]
mod tests {
    use warp::http::HeaderValue;

    use super::*;

    fn headers(after: &[&str], wait: Option<&str>) -> HeaderMap {
        let after = after.iter().map(|value| (X_KVSPACE_AFTER, *value));
        let all = after.chain(wait.map(|value| (X_KVSPACE_WAIT_MS, value)));
        let mut map = HeaderMap::new();
        for (name, value) in all {
            map.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        map
    }

    fn epochs(count: u8) -> Vec<String> {
        (0..count).map(|n| EpochId::of(&[n]).to_string()).collect()
    }

    #[test]
    fn epochs_come_in_a_list_or_in_several_headers() {
        assert_eq!(Barrier::read(&headers(&[], Some("7"))), Ok(None));
        let names = epochs(2);
        let mut expected: Vec<EpochId> = names.iter().map(|name| name.parse().expect("an id")).collect();
        expected.sort_unstable();
        let list = names.join(", ");
        for after in [&[&*list, &*names[0]][..], &[&names[1], &names[0]]] {
            let barrier = Barrier::read(&headers(after, None)).expect("a barrier").expect("some");
            assert_eq!(barrier, Barrier { epochs: expected.clone(), wait: Duration::from_secs(5) });
        }
        let barrier = Barrier::read(&headers(&[&list], Some("0"))).expect("a barrier").expect("some");
        assert_eq!(barrier.wait, Duration::ZERO);
    }

    #[test]
    fn what_cannot_be_read_is_refused_and_never_passed_over() {
        let one = &*epochs(1)[0];
        assert!(Barrier::read(&headers(&[&epochs(16).join(",")], None)).is_ok());
        for after in [&epochs(17).join(","), "", "x", &format!("{one},"), &format!("{one} {one}")] {
            assert_eq!(Barrier::read(&headers(&[after], None)), Err(malformed()), "{after}");
        }
        for wait in ["", "-1", "+1", "1.5", "60001", "soon", "99999999999999999999"] {
            assert!(Barrier::read(&headers(&[one], Some(wait))).is_err(), "{wait}");
        }
        assert!(Barrier::read(&headers(&[one], Some("60000"))).is_ok());
    }
}
