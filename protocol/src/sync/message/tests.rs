use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::{
    id::{Did, Incarnation},
    sync::have::Tip,
};

fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn epochs() -> impl Strategy<Value = Vec<EpochId>> {
    vec(any::<[u8; 32]>().prop_map(EpochId), 0..4)
}

fn space() -> impl Strategy<Value = SpaceId> {
    any::<u8>().prop_map(|seed| SpaceId::new(&Did::from_ed25519(&[seed; 32]), "default").expect("a space id"))
}

fn sent() -> impl Strategy<Value = Sent> {
    (bytes(40), bytes(40), any::<[u8; 32]>(), vec(bytes(20), 0..3)).prop_map(|(header, body, half, values)| {
        let signature = std::array::from_fn(|at| half[at % 32]);
        Sent { epoch: SignedEpoch { header, body, signature }, values }
    })
}

fn have() -> impl Strategy<Value = Have> {
    let tip = (any::<[u8; 32]>(), any::<[u8; 8]>(), any::<[u64; 3]>(), any::<[u8; 32]>());
    let tip = tip.prop_map(|(host, incarnation, [first_n, n, seq], id)| Tip {
        host: HostKey(host),
        incarnation: Incarnation(incarnation),
        first_n,
        n,
        seq,
        id: EpochId(id),
    });
    prop_oneof![
        epochs().prop_map(Have::Heads),
        (vec(tip, 0..4), option::of(any::<[u8; 32]>())).prop_map(|(tips, rest)| Have::Branches { tips, rest }),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let shown = || vec(bytes(20), 0..3);
    let pushed = (space(), vec(sent(), 0..3), vec(any::<[u8; 32]>().prop_map(HostKey), 0..3));
    let pushed = pushed.prop_map(|(space, epochs, told)| Pushed { space, epochs, told });
    prop_oneof![
        bytes(60).prop_map(Request::Compare),
        (space(), have(), option::of(any::<u64>().prop_map(Cursor)), shown())
            .prop_map(|(space, have, after, shown)| Request::Pull { space, have, after, shown }),
        (space(), epochs(), shown()).prop_map(|(space, epochs, shown)| Request::Get { space, epochs, shown }),
        (space(), vec(any::<[u8; 32]>().prop_map(Address), 0..3), shown())
            .prop_map(|(space, addresses, shown)| Request::Proofs { space, addresses, shown }),
        vec(pushed, 0..3).prop_map(Request::Push),
    ]
}

fn response() -> impl Strategy<Value = Response> {
    let refused = || prop_oneof![Just(Refused::NotFound), Just(Refused::Busy), Just(Refused::Malformed)];
    let verdict = prop_oneof![Just(Verdict::Taken), refused().prop_map(Verdict::Refused)];
    let answer = (epochs(), vec(sent(), 0..3), option::of(any::<u64>().prop_map(Cursor)), any::<bool>());
    prop_oneof![
        bytes(60).prop_map(Response::Compare),
        answer.prop_map(|(heads, epochs, next, tell_branches)| Response::Epochs { heads, epochs, next, tell_branches }),
        vec(bytes(20), 0..3).prop_map(Response::Proofs),
        vec(verdict, 0..3).prop_map(Response::Push),
        refused().prop_map(Response::Refused),
    ]
}

/// Whatever is read has these bytes and no others.
fn reads_canonically(bytes: &[u8]) {
    if let Ok(request) = Request::decode(bytes) {
        assert_eq!(request.encode(), bytes);
    }
    if let Ok(response) = Response::decode(bytes) {
        assert_eq!(response.encode(), bytes);
    }
}

proptest! {
    #[test]
    fn a_message_reads_back_as_it_was_written(request in request(), response in response()) {
        prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
        prop_assert_eq!(Response::decode(&response.encode()), Ok(response));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        reads_canonically(&bytes);
    }

    #[test]
    fn a_damaged_message_is_read_canonically_or_refused(
        request in request(),
        response in response(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        for message in [request.encode(), response.encode()] {
            let mut damaged = message.to_vec();
            for (at, byte) in &damage {
                let at = at.index(damaged.len());
                damaged[at] = *byte;
                reads_canonically(&damaged);
            }
            reads_canonically(&message[..cut.index(message.len())]);
            prop_assert!(Request::decode(&[&message[..], &[0]].concat()).is_err());
        }
    }
}

#[test]
fn the_bytes_of_a_message_are_these() {
    let refused = Response::Refused(Refused::NotFound).encode();
    assert_eq!(refused, b"\xa1\x67refused\x69not_found"[..]);
    let verdicts = Response::Push(vec![Verdict::Taken, Verdict::Refused(Refused::Busy)]).encode();
    assert_eq!(verdicts, b"\xa1\x64push\x82\x65taken\xa1\x67refused\x64busy"[..]);
    assert_eq!(Request::Compare(Bytes::from_static(b"xyz")).encode(), b"\xa1\x67compare\x43xyz"[..]);
}

#[test]
fn a_choice_is_a_whole_map_or_a_text() {
    assert!(Response::decode(b"\xa1\x67refused\x64busy").is_ok());
    assert_eq!(Response::decode(b"\x67refused\x64busy"), Err(BrokenMessage::NotCanonical));
    assert_eq!(Response::decode(b"\xa1\x67refused\xa1\x64busy"), Err(BrokenMessage::NotCanonical));
}

#[test]
fn a_message_beyond_a_bound_is_refused() {
    let space = SpaceId::new(&Did::from_ed25519(&[1; 32]), "default").expect("a space id");
    let id = EpochId([7; 32]);
    let get = |number| Request::Get { space: space.clone(), epochs: vec![id; number], shown: vec![] };
    let shown = |number, size| Request::Proofs {
        space: space.clone(),
        addresses: vec![],
        shown: vec![vec![0; size].into(); number],
    };
    let pull = |have| Request::Pull { space: space.clone(), have, after: None, shown: vec![] };
    let sent =
        Sent { epoch: SignedEpoch { header: Bytes::new(), body: Bytes::new(), signature: [0; 64] }, values: vec![] };
    let push = |number| {
        let half = |number| Pushed { space: space.clone(), epochs: vec![sent.clone(); number], told: vec![] };
        Request::Push(vec![half(number / 2), half(number - number / 2)])
    };
    let tip = Tip { host: HostKey([0; 32]), incarnation: Incarnation([0; 8]), first_n: 0, n: 0, seq: 0, id };
    let tips = |number| pull(Have::Branches { tips: vec![tip; number], rest: None });
    let epochs = |heads, number| Response::Epochs {
        heads: vec![id; heads],
        epochs: vec![sent.clone(); number],
        next: None,
        tell_branches: false,
    };
    let requests = [
        (get(NAMES_MAX), get(NAMES_MAX + 1)),
        (shown(SHOWN_MAX, 1), shown(SHOWN_MAX + 1, 1)),
        (shown(1, TOKEN_BYTES_MAX), shown(1, TOKEN_BYTES_MAX + 1)),
        (pull(Have::Heads(vec![id; HEADS_MAX])), pull(Have::Heads(vec![id; HEADS_MAX + 1]))),
        (tips(TIPS_MAX), tips(TIPS_MAX + 1)),
        (push(MESSAGE_EPOCHS_MAX), push(MESSAGE_EPOCHS_MAX + 1)),
        (Request::Compare(vec![0; COMPARE_BYTES_MAX].into()), Request::Compare(vec![0; COMPARE_BYTES_MAX + 1].into())),
    ];
    for (greatest, beyond) in requests {
        assert!(Request::decode(&greatest.encode()).is_ok());
        assert!(matches!(Request::decode(&beyond.encode()), Err(BrokenMessage::TooLarge(_))));
    }
    let responses = [
        (epochs(HEADS_MAX, 1), epochs(HEADS_MAX + 1, 1)),
        (epochs(1, MESSAGE_EPOCHS_MAX), epochs(1, MESSAGE_EPOCHS_MAX + 1)),
        (
            Response::Proofs(vec![Bytes::new(); PROOFS_TOLD_MAX]),
            Response::Proofs(vec![Bytes::new(); PROOFS_TOLD_MAX + 1]),
        ),
    ];
    for (greatest, beyond) in responses {
        assert!(Response::decode(&greatest.encode()).is_ok());
        assert!(matches!(Response::decode(&beyond.encode()), Err(BrokenMessage::TooLarge(_))));
    }
}

#[test]
fn a_small_message_that_is_large_in_memory_is_refused_unread() {
    let sent = Sent {
        epoch: SignedEpoch { header: Bytes::new(), body: Bytes::new(), signature: [0; 64] },
        values: vec![Bytes::new(); MESSAGE_ITEMS_MAX],
    };
    let response = Response::Epochs { heads: vec![], epochs: vec![sent], next: None, tell_branches: false };
    assert_eq!(Response::decode(&response.encode()), Err(BrokenMessage::TooLarge("the number of items")));
}
