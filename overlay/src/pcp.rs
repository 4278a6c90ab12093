//! Where a router is that opens no port: as much of PCP (RFC 6887) as a refused MAP request tells.
//!
//! Owns: that request and what its refusal says beside its code, which crab_nat, by which ports are asked for, does not
//! hand out. RFC 6887, section 11.3, has the suggested address come back in an error; miniupnpd, which refuses every
//! port while its own outer address is private, writes that address there. Never: a socket, a granted port.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Opcode MAP (RFC 6887, section 19.2).
const MAP: u8 = 1;
const RESPONSE: u8 = 0x80;
const VERSION: u8 = 2;
/// UDP, as IP numbers it.
const UDP: u8 = 17;
/// Header and MAP data (RFC 6887, sections 7 and 11.1).
const LENGTH: usize = 24 + 36;

/// Ties an answer to its request.
pub type Nonce = [u8; 12];

/// Asks for UDP port `port` of `own`, for `life` seconds, and suggests nothing.
#[must_use]
pub fn request(own: Ipv4Addr, port: u16, life: u32, nonce: Nonce) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    (bytes[0], bytes[1]) = (VERSION, MAP);
    bytes[4..8].copy_from_slice(&life.to_be_bytes());
    bytes[8..24].copy_from_slice(&own.to_ipv6_mapped().octets());
    bytes[24..36].copy_from_slice(&nonce);
    bytes[36] = UDP;
    bytes[40..42].copy_from_slice(&port.to_be_bytes());
    bytes[42..44].copy_from_slice(&port.to_be_bytes());
    bytes[44..60].copy_from_slice(&Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().octets());
    bytes
}

/// The router's outer address as it stands in the refusal of the request with this nonce.
#[must_use]
pub fn outer_in_refusal(answer: &[u8], nonce: Nonce) -> Option<Ipv4Addr> {
    let answer: &[u8; LENGTH] = answer.first_chunk()?;
    let is_refusal = answer[0] == VERSION && answer[1] == (RESPONSE | MAP) && answer[3] != 0;
    let octets: &[u8; 16] = answer[44..].first_chunk()?;
    let outer = Ipv6Addr::from(*octets).to_ipv4_mapped()?;
    (is_refusal && answer[24..36] == nonce && !outer.is_unspecified()).then_some(outer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: Nonce = *b"AAAAAAAAAAAA";

    /// What miniupnpd 2.3.1 says at 100.64.0.2 to a request for port 7001.
    fn refusal() -> Vec<u8> {
        let mut answer = vec![2, 0x81, 0, 8, 0, 0, 0, 30, 0, 0, 0, 2];
        answer.extend([0; 12]);
        answer.extend(NONCE);
        answer.extend([17, 0, 0, 0, 0x1b, 0x59, 0x1b, 0x59]);
        answer.extend(Ipv4Addr::new(100, 64, 0, 2).to_ipv6_mapped().octets());
        answer
    }

    #[test]
    fn a_refusal_names_the_routers_address() {
        assert_eq!(outer_in_refusal(&refusal(), NONCE), Some(Ipv4Addr::new(100, 64, 0, 2)));
    }

    #[test]
    fn what_is_no_refusal_of_ours_names_none() {
        let changed = |at: usize, to: u8| {
            let mut answer = refusal();
            answer[at] = to;
            outer_in_refusal(&answer, NONCE)
        };
        assert_eq!(changed(0, 0), None, "NAT-PMP");
        assert_eq!(changed(1, 1), None, "a request");
        assert_eq!(changed(3, 0), None, "granted: then the port is what counts");
        assert_eq!(changed(24, b'B'), None, "somebody else's");
        assert_eq!(changed(44, 0x20), None, "no IPv4 address");
        assert_eq!(outer_in_refusal(&refusal()[..59], NONCE), None);
        let mut copied = refusal();
        copied[44..60].copy_from_slice(&Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().octets());
        assert_eq!(outer_in_refusal(&copied, NONCE), None, "a router that keeps to the RFC says nothing");
    }

    #[test]
    fn a_request_says_who_asks_for_what() {
        let bytes = request(Ipv4Addr::new(192, 168, 10, 2), 7001, 7200, NONCE);
        assert_eq!(bytes[..8], [2, 1, 0, 0, 0, 0, 0x1c, 0x20]);
        assert_eq!(bytes[18..24], [0xff, 0xff, 192, 168, 10, 2]);
        assert_eq!(bytes[36..44], [17, 0, 0, 0, 0x1b, 0x59, 0x1b, 0x59]);
    }
}
