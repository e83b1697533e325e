//! The progress of large transfers, for people.

use std::sync::atomic::{AtomicU64, Ordering};

use kvspace_client::{Millis, Progress};

use super::output::{is_watched, progress_line};

/// Smaller ones are over before one looks.
const SHOWN_FROM_BYTES: u64 = 8 * 1024 * 1024;
/// The line is written again after so many bytes.
const STEP_BYTES: u64 = 1024 * 1024;

/// A line on standard error that says how far a transfer is, when it is large and somebody watches. It goes away when
/// this is dropped.
pub(crate) struct ProgressLine(());

impl ProgressLine {
    pub(crate) fn start() -> (Self, Progress) {
        if !is_watched() {
            return (Self(()), Progress::none());
        }
        let shown = AtomicU64::new(0);
        let progress = Progress::new(move |done, total| {
            let large = total.unwrap_or(done) >= SHOWN_FROM_BYTES;
            let last = shown.load(Ordering::Relaxed);
            if large && (done >= last + STEP_BYTES || total == Some(done)) {
                shown.store(done, Ordering::Relaxed);
                progress_line(&line(done, total));
            }
        });
        (Self(()), progress)
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if is_watched() {
            progress_line("");
        }
    }
}

fn line(done: u64, total: Option<u64>) -> String {
    match total {
        Some(total) if total > 0 => format!("{} of {} ({} %)", bytes(done), bytes(total), done * 100 / total),
        Some(_) | None => bytes(done),
    }
}

/// A number of bytes in round numbers.
pub(crate) fn bytes(count: u64) -> String {
    let mib = 1024 * 1024;
    if count < 1024 {
        format!("{count} B")
    } else if count < mib {
        format!("{} KiB", count / 1024)
    } else if count < 1024 * mib {
        format!("{} MiB", count / mib)
    } else {
        format!("{}.{} GiB", count / mib / 1024, count / mib % 1024 * 10 / 1024)
    }
}

/// How long ago something was, in round numbers.
pub(crate) fn ago(at: Millis, now: Millis) -> String {
    let seconds = now.0.saturating_sub(at.0).max(0) / 1000;
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86_400 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

/// So many things.
pub(crate) fn some(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_said_in_round_numbers() {
        assert_eq!(line(50 << 20, Some(100 << 20)), "50 MiB of 100 MiB (50 %)");
        assert_eq!(line(1 << 20, None), "1 MiB");
        assert_eq!((bytes(17), bytes(5000)), ("17 B".to_owned(), "4 KiB".to_owned()));
        let ages = [500, 59_999, 60_000, 7_200_000, 172_800_000].map(|ms| ago(Millis(0), Millis(ms)));
        assert_eq!(ages, ["0 s ago", "59 s ago", "1 min ago", "2 h ago", "2 d ago"]);
        assert_eq!((some(1, "key"), some(0, "key")), ("1 key".to_owned(), "0 keys".to_owned()));
        assert_eq!(line(3 << 29, Some(2 << 30)), "1.5 GiB of 2.0 GiB (75 %)");
    }
}
