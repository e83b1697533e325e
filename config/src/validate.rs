//! The ranges of options.

use kvspace_protocol::limits::{COMMIT_INLINE_BYTES_MAX, EPOCH_BODY_BYTES_MAX, INLINE_BYTES_MAX};

use crate::{Config, ConfigError, multiaddr};

/// A segment holds at least the largest commit: a body, the inline values, and 1 MiB for the records around them.
const SEGMENT_BYTES_MIN: u64 = EPOCH_BODY_BYTES_MAX as u64 + COMMIT_INLINE_BYTES_MAX + (1 << 20);
/// Positions in a segment are 32 bits, with room to spare.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// The index needs to hold the pages that one batch touches.
const CACHE_BYTES_MIN: u64 = 4 << 20;
/// What the log and the index need to end what they have begun.
const RESERVE_BYTES_MIN: u64 = 128 << 20;
/// A thousand years.
const RETENTION_S_MAX: u64 = 1_000 * 366 * 86_400;
/// Ten thousand years: for tokens made once and kept, as in tests.
const LIFETIME_MAX_S: u64 = 10_000 * 366 * 86_400;
/// A day: longer waits are a mistake in the unit.
const WAIT_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// A day: what pushing missed should not be missing for longer.
const COMPARE_INTERVAL_S_MAX: u64 = 24 * 60 * 60;
/// Addresses in one list: each is listened on or dialled for ever.
const ADDRESSES_MAX: usize = 1024;

/// Checks what types cannot say.
pub(crate) fn validate(config: &Config) -> Result<(), ConfigError> {
    let Config { http, network, spaces, tokens, memory, storage, retention, .. } = config;
    let waits = [
        ("http.header_timeout_ms", http.header_timeout_ms),
        ("http.body_idle_timeout_ms", http.body_idle_timeout_ms),
        ("http.stop_timeout_ms", http.stop_timeout_ms),
        ("memory.permit_wait_ms", memory.permit_wait_ms),
        ("network.pending_wait_ms", network.pending_wait_ms),
    ];
    for (key, wait_ms) in waits {
        in_range(key, wait_ms, 1, WAIT_MS_MAX)?;
    }
    let counts = [
        ("http.connections_max", http.connections_max),
        ("http.connections_per_ip_max", http.connections_per_ip_max),
        ("spaces.active_max", spaces.active_max),
    ];
    for (key, count) in counts {
        in_range(key, count as u64, 1, u64::from(u32::MAX))?;
    }
    for (key, addresses) in [("network.listen", &network.listen), ("network.peers", &network.peers)] {
        multiaddrs(key, addresses)?;
    }
    if network.listen.is_empty() && !network.peers.is_empty() {
        let message = "there is no network while network.listen is empty: name an address to listen on";
        return Err(invalid("network.peers", message.into()));
    }
    in_range("network.compare_interval_s", network.compare_interval_s, 1, COMPARE_INTERVAL_S_MAX)?;
    in_range("http.body_bytes_max", http.body_bytes_max, 1, i64::MAX.unsigned_abs())?;
    in_range("tokens.lifetime_max_s", tokens.lifetime_max_s, 1, LIFETIME_MAX_S)?;
    in_range("memory.body_bytes_max", memory.body_bytes_max, 4 * INLINE_BYTES_MAX, u64::from(u32::MAX))?;
    in_range("storage.segment_bytes", storage.segment_bytes, SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)?;
    in_range("storage.index_cache_bytes", storage.index_cache_bytes, CACHE_BYTES_MIN, i64::MAX.unsigned_abs())?;
    in_range("storage.reserve_free_bytes", storage.reserve_free_bytes, RESERVE_BYTES_MIN, i64::MAX.unsigned_abs())?;
    in_range("retention.superseded_s", retention.superseded_s, 0, RETENTION_S_MAX)?;
    in_range("retention.interval_s", retention.interval_s, 1, RETENTION_S_MAX)
}

fn in_range(key: &str, value: u64, least: u64, most: u64) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(invalid(key, format!("{value} is not between {least} and {most}")))
}

fn multiaddrs(key: &str, addresses: &[String]) -> Result<(), ConfigError> {
    if addresses.len() > ADDRESSES_MAX {
        return Err(invalid(key, format!("{} addresses are more than {ADDRESSES_MAX}", addresses.len())));
    }
    for address in addresses {
        multiaddr::check(address).map_err(|why| invalid(key, format!("`{address}` is no multiaddress: {why}")))?;
    }
    Ok(())
}

fn invalid(key: &str, message: String) -> ConfigError {
    ConfigError::Invalid { origin: "configuration".into(), key: key.into(), message }
}
