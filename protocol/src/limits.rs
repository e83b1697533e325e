//! Every bound of the protocol, in one place.
//!
//! The first group makes an epoch invalid and is the same on every host for ever; the second bounds what one
//! process keeps in memory and may differ between releases.

/// Longest key, in bytes. A key is a URI path; 1 KiB leaves room for any sensible path in a 64 KiB token.
pub const KEY_BYTES_MAX: usize = 1024;
/// Stored headers of one value: the sum of names and values, in bytes.
pub const META_BYTES_MAX: usize = 8 * 1024;
/// One token, in bytes as stored: CBOR of a CACAO, ASCII of a JWT.
pub const TOKEN_BYTES_MAX: usize = 64 * 1024;
/// Events of one epoch.
pub const EPOCH_EVENTS_MAX: usize = 4096;
/// Parents of one epoch, beside `prev`.
pub const EPOCH_PARENTS_MAX: usize = 64;
/// The body of an epoch, in bytes: 4,096 events of the usual 1 KiB.
pub const EPOCH_BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The header of an epoch, in bytes: 64 parents of about 40 bytes, a space id and the rest.
pub const EPOCH_HEADER_BYTES_MAX: usize = 8 * 1024;
/// Longest space id, in bytes.
pub const SPACE_ID_BYTES_MAX: usize = 512;
/// Delegations in the closure of one token's proofs.
pub const PROOFS_MAX: usize = 64;

/// How far a clock may be ahead: of an epoch before it waits, of our own commits before they are refused.
pub const CLOCK_AHEAD_MAX_MS: i64 = 60_000;
/// How long after its expiry a token may still stand in an epoch: it was accepted in time and committed later.
pub const EXPIRY_GRACE_MS: i64 = 60_000;
/// A token's operations count at the least version not older than this before its expiry, while there is one.
pub const ONCE_WINDOW_MS: i64 = 6 * 60_000;

/// A value up to this size travels inside the log; a larger one is a file. 256 KiB.
pub const INLINE_BYTES_MAX: u64 = 256 * 1024;
/// Inline values of one commit: beside the body they must fit a log segment, and one write should not take long.
pub const COMMIT_INLINE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Events of one epoch that this host makes: with two index records each they fit one batch of the index.
pub const COMMIT_EVENTS_MAX: usize = 96;
/// Epochs from other hosts in one commit; what more there is follows in the next.
pub const COMMIT_EPOCHS_MAX: usize = 256;
/// Their bytes, values included: an epoch with a body of 4 MiB, and as much again of values. Beside them an own epoch still
/// finds the 4 MiB of a body in the smallest segment.
pub const COMMIT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Changes of the index after which a commit takes in no further epoch: about as much as the index's tail holds.
pub const COMMIT_CHANGES_MAX: usize = 4000;
/// Hosts that are remembered to have an epoch on its way; one that is forgotten is sent it once more.
pub const TOLD_MAX: usize = 256;
/// Delegations of one space that clients may bring to this host: twenty new sessions a day for nine years.
pub const DELEGATIONS_MAX: usize = 65_536;
/// Their bytes: a space that is in use has them in memory.
pub const DELEGATIONS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Epochs that wait for a missing ancestor or for the clock, per space.
pub const WAITING_EPOCHS_MAX: usize = 1024;
/// Bytes of the epochs that wait or are still to be looked at, with the values that came with them, per space.
pub const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of one request or answer between hosts: an epoch with a body of 4 MiB, and as much again of values.
pub const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024 + 64 * 1024;
/// What an answer with epochs aims at.
pub const PULL_BYTES: usize = 1024 * 1024;
/// Epochs of a chain that come before one that was asked for by its id.
pub const GET_RUN_EPOCHS: usize = 64;
/// Epochs or delegations asked for by name in one request.
pub const NAMES_MAX: usize = 256;
/// One message of set reconciliation.
pub const COMPARE_BYTES_MAX: usize = 60 * 1024;
/// Rounds of one comparison.
pub const COMPARE_ROUNDS_MAX: usize = 64;
/// Branches told in one request: about 120 bytes each.
pub const TIPS_MAX: usize = 8 * 1024;
/// Heads told in one message; a replica with more tells its branches.
pub const HEADS_MAX: usize = 256;
/// Epochs in one message: an epoch has 256 bytes at least.
pub const MESSAGE_EPOCHS_MAX: usize = 4 * 1024;
/// Items of DAG-CBOR in one message, at about 40 bytes of memory each: 8,192 branches of 8, or 4,096 epochs with 20 values each.
pub const MESSAGE_ITEMS_MAX: usize = 128 * 1024;
/// Delegations in one answer, with all they rest on.
pub const PROOFS_TOLD_MAX: usize = 1024;
/// Tokens that a peer shows with a request.
pub const SHOWN_MAX: usize = PROOFS_MAX + 1;
/// Spaces that wait to be pulled from one peer; more are found by the next comparison.
pub const PULLS_WAITING_MAX: usize = 64 * 1024;
/// Spaces at peers whose heads are remembered: about 500 bytes each.
pub const KNOWN_MAX: usize = 16 * 1024;
/// Heads of all these: 32 bytes each.
pub const KNOWN_HEADS_MAX: usize = 256 * 1024;
/// Pulls from one peer that wait to go on by name: up to 8 KiB each. Others begin again.
pub const PULLS_NAMED_MAX: usize = 1024;
/// Branches told at first when heads are not known to the other; four times as many each time that is not enough.
pub const TIPS_FIRST: usize = 32;
/// Steps back by name in one pull that bring nothing into the log: what they bring has to fit the waiting room.
pub const WALK_STEPS_MAX: usize = WAITING_EPOCHS_MAX / GET_RUN_EPOCHS;
/// Pages of one pull that bring nothing into the log, while what they bring is held already: 4 GiB.
pub const IDLE_PAGES_MAX: usize = 4 * 1024;
/// All of a space is asked for once an interval of comparing at the most; when it brings nothing, so many times twice as seldom.
pub const WHOLE_DOUBLINGS_MAX: u32 = 6;
/// The least delay before something that failed with a peer is tried again; doubled each time.
pub const RETRY_MS: i64 = 1_000;
/// A space that a peer does not have or show is asked for at the latest after so many intervals of comparing.
pub const NOT_FOUND_INTERVALS: i64 = 4;
/// After so many comparisons in a row that found what should have been pushed a connection is made anew.
pub const RENEW_AFTER: u32 = 3;

/// The largest value that is fetched: 256 TiB, so that sums of sizes never overflow.
pub const BLOB_BYTES_MAX: u64 = 1 << 48;
/// Bytes of a value asked for in one request.
pub const BLOB_RANGE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// One request for a range of a value: the range, and what is shown.
pub const BLOB_REQUEST_BYTES_MAX: usize = 1024 * 1024;
