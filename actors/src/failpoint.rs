//! Failpoints: named moments at which a test ends the process as a power switch would.
//!
//! The environment variable `KVSPACE_FAILPOINT=name:n` ends the process (SIGKILL) when it is at the moment `name` for
//! the `n`-th time. Release builds have none of this.

/// Every name, in the order in which a write passes them. A test goes through all.
pub const NAMES: [&str; 29] = [
    // A value of its own file.
    "blobs.synced",
    "blobs.renamed",
    "blobs.named",
    // The log: a round.
    "log.write",
    "log.written",
    "log.synced",
    // The log: from one segment to the next.
    "log.spare.half",
    "log.roll.header",
    "log.roll.renamed",
    "log.roll.named",
    // The index.
    "index.begun",
    "index.batch",
    "index.batch.stored",
    "index.batch.between",
    "index.close.sync",
    "index.close.state",
    "index.aside.said",
    "index.aside.moved",
    "index.rebuild",
    "index.rebuilt",
    // A segment is written anew.
    "compact.half",
    "compact.written",
    "compact.synced",
    "compact.renamed",
    "compact.named",
    "compact.swapped",
    // A file nobody needs.
    "collect.found",
    "collect.forgotten",
    "collect.removed",
];

/// The process is at this moment.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn reached(_: &str) {}

/// The process is at this moment.
#[cfg(debug_assertions)]
pub(crate) fn reached(name: &str) {
    use std::{
        env,
        sync::{
            OnceLock,
            atomic::{AtomicU64, Ordering},
        },
    };
    static CHOSEN: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static TIMES: AtomicU64 = AtomicU64::new(0);
    debug_assert!(NAMES.contains(&name), "{name} is not among the names");
    let chosen = CHOSEN.get_or_init(|| {
        let (name, times) =
            env::var("KVSPACE_FAILPOINT").ok()?.rsplit_once(':').map(|(n, t)| (n.to_owned(), t.parse()))?;
        times.ok().map(|times| (name, times))
    });
    let Some((_, at)) = chosen.as_ref().filter(|(chosen, _)| chosen == name) else { return };
    if TIMES.fetch_add(1, Ordering::SeqCst) + 1 == *at {
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).ok();
        loop {
            std::thread::park();
        }
    }
}
