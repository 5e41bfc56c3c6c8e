//! Addresses that HAProxy can be told to bind. Each is on a loopback address of its own: on 127.0.0.1 the system may
//! give a free port to whoever connects or listens before HAProxy has it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// A free port on one address of 127.128.0.0/10 per process and call.
pub fn free() -> SocketAddr {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let number = (std::process::id() << 7).wrapping_add(CALLS.fetch_add(1, Ordering::Relaxed));
    let [_, b, c, d] = number.to_be_bytes();
    TcpListener::bind((Ipv4Addr::new(127, 128 | (b & 0x3f), c, d), 0)).unwrap().local_addr().unwrap()
}
