//! How many connections one address holds.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Counts connections by address. An IPv6 address counts by its first 64 bits, which one subscriber has to himself.
#[derive(Clone)]
pub(super) struct PerIp {
    max: usize,
    held: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One connection's share, given back when it is dropped.
pub(super) struct Share {
    of: PerIp,
    address: IpAddr,
}

impl PerIp {
    pub(super) fn new(max: usize) -> Self {
        Self { max, held: Arc::default() }
    }

    /// Takes a share for a connection from this address, `None` when it has them all.
    pub(super) fn enter(&self, address: IpAddr) -> Option<Share> {
        let address = subscriber(address);
        let mut held = self.lock();
        let count = held.entry(address).or_insert(0);
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Share { of: self.clone(), address })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.of.lock();
        if let Some(count) = held.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.address);
            }
        }
    }
}

fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_has_its_share_and_no_more() {
        let addresses = PerIp::new(2);
        let first = addresses.enter(ip("192.0.2.1")).expect("a share");
        let _second = addresses.enter(ip("::ffff:192.0.2.1")).expect("the same address");
        assert!(addresses.enter(ip("192.0.2.1")).is_none());
        assert!(addresses.enter(ip("192.0.2.2")).is_some());
        drop(first);
        assert!(addresses.enter(ip("192.0.2.1")).is_some());
        assert_eq!(addresses.lock().len(), 1);
    }

    #[test]
    fn a_subscriber_has_many_ipv6_addresses() {
        let addresses = PerIp::new(1);
        let _share = addresses.enter(ip("2001:db8:0:1::1")).expect("a share");
        assert!(addresses.enter(ip("2001:db8:0:1:ffff::2")).is_none());
        assert!(addresses.enter(ip("2001:db8:0:2::1")).is_some());
    }
}
