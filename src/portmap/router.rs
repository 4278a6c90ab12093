//! One router, asked in one of three ways.
//!
//! Owns: what a request and its answer mean, whatever the protocol. Never: when to ask.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::num::NonZeroU16;
use std::time::Duration;

use crab_nat::{
    GatewayAddress, InternetProtocol, PortMapping, PortMappingOptions, PortMappingType, TimeoutConfig,
    natpmp, pcp,
};
use frejus_overlay::locator::is_public;
use frejus_overlay::mapping::{Mapped, MappingProtocol};
use frejus_overlay::pcp as refused;
use ring::hmac;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::LIFE;
use super::upnp::Igd;

/// A router on the link answers within milliseconds: 250, 500 and 1000 ms, then it does not do it (RFC 6886, section
/// 3.1, has the first two; its nine tries are for a link that is coming up, and then we are asked again).
const PATIENCE: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(250),
    max_retries: 2,
    max_retry_timeout: Some(Duration::from_secs(1)),
};

/// The answer to a request that is not repeated: all that a router on the link ever takes.
const ONE_ANSWER: Duration = Duration::from_millis(500);

/// What the router gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    /// Its address, and the port on it.
    pub(super) at: SocketAddr,
    /// How long it lasts.
    pub(super) life: Duration,
    /// Seconds since the router forgot everything; UPnP does not say.
    pub(super) epoch: Option<u32>,
}

/// Makes the nonce of each place (RFC 6887, section 11.1): the same again after a crash, else the router would keep the
/// port for a client that is no more.
#[derive(Debug)]
pub(super) struct Nonces(hmac::Key);

impl Nonces {
    pub(super) fn new(secret: &[u8; 32]) -> Self {
        let purpose = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), b"frejus/1 port mapping nonce");
        Self(hmac::Key::new(hmac::HMAC_SHA256, purpose.as_ref()))
    }

    pub(super) fn of(&self, gateway: Ipv4Addr, own: Ipv4Addr) -> pcp::Nonce {
        let tag = hmac::sign(&self.0, &[gateway.octets(), own.octets()].concat());
        let word = |at: usize| tag.as_ref()[at..].first_chunk().map_or(0, |word| u32::from_be_bytes(*word));
        [word(0), word(4), word(8)]
    }
}

/// A router and what is to be mapped there.
#[derive(Debug)]
pub(super) struct Router {
    gateway: Ipv4Addr,
    own: Ipv4Addr,
    port: NonZeroU16,
    nonce: pcp::Nonce,
    igd: Option<Igd>,
}

impl Router {
    pub(super) const fn new(gateway: Ipv4Addr, own: Ipv4Addr, port: NonZeroU16, nonce: pcp::Nonce) -> Self {
        Self { gateway, own, port, nonce, igd: None }
    }

    pub(super) const fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    pub(super) const fn own(&self) -> Ipv4Addr {
        self.own
    }

    /// Ask for a mapping, or for the one at `last` to be renewed.
    pub(super) async fn ask(
        &mut self,
        protocol: MappingProtocol,
        last: Option<SocketAddr>,
        life: Duration,
    ) -> Result<Grant, String> {
        let grant = match protocol {
            MappingProtocol::Pcp => self.ask_pcp(last, life).await,
            MappingProtocol::NatPmp => self.ask_nat_pmp(last, life).await,
            MappingProtocol::Upnp => self.ask_upnp(last, life).await,
        }?;
        if Mapped::is_plausible(grant.at) { Ok(grant) } else { Err(format!("it maps to {}", grant.at)) }
    }

    async fn ask_pcp(&self, last: Option<SocketAddr>, life: Duration) -> Result<Grant, String> {
        let base =
            pcp::BaseMapRequest::new(self.gateway4(), self.own.into(), InternetProtocol::Udp, self.port);
        let wanted = last.map(|at| at.ip());
        let mapping = pcp::port_mapping(base, Some(self.nonce), wanted, self.options(last, life)).await;
        let mapping = mapping.map_err(|why| why.to_string())?;
        match mapping.mapping_type() {
            PortMappingType::Pcp { external_ip, .. } => Ok(grant(&mapping, external_ip)),
            PortMappingType::NatPmp => Err("an answer of another protocol".to_owned()),
        }
    }

    async fn ask_nat_pmp(&self, last: Option<SocketAddr>, life: Duration) -> Result<Grant, String> {
        let options = self.options(last, life);
        let mapping = natpmp::port_mapping(self.gateway4(), InternetProtocol::Udp, self.port, options).await;
        let mapping = mapping.map_err(|why| why.to_string())?;
        let external = natpmp::external_address(self.gateway4(), Some(PATIENCE)).await;
        Ok(grant(&mapping, external.map_err(|why| why.to_string())?.into()))
    }

    async fn ask_upnp(&mut self, last: Option<SocketAddr>, life: Duration) -> Result<Grant, String> {
        let igd = match self.igd.take() {
            Some(igd) => igd,
            None => Igd::find(self.gateway, self.own).await?,
        };
        let wanted = last.map_or(self.port.get(), |at| at.port());
        let internal = SocketAddrV4::new(self.own, self.port.get());
        // A router that refuses may be another one by now: it is looked for again.
        let (at, life) = igd.add(wanted, internal, life).await?;
        self.igd = Some(igd);
        Ok(Grant { at: at.into(), life, epoch: None })
    }

    /// Where a router that opens no port is on its far side, as far as it says so, in whichever protocol, and as far as
    /// that is not public: behind a second NAT, neighbours can use it.
    pub(super) async fn outer(&self) -> Option<Ipv4Addr> {
        let useful = |ip: &Ipv4Addr| {
            let own = SocketAddr::from((*ip, self.port.get()));
            Mapped::is_plausible(own) && !is_public(own.ip()) && *ip != self.gateway && *ip != self.own
        };
        if let Some(ip) = self.outer_by_pcp().await.filter(useful) {
            return Some(ip);
        }
        let answer = natpmp::external_address(self.gateway4(), Some(PATIENCE)).await;
        if let Some(ip) = answer.ok().filter(useful) {
            return Some(ip);
        }
        Igd::find(self.gateway, self.own).await.ok()?.outer().await.filter(useful)
    }

    /// By what a refusal tells. One request: a router that speaks PCP has just answered one.
    async fn outer_by_pcp(&self) -> Option<Ipv4Addr> {
        let mut nonce = refused::Nonce::default();
        for (bytes, word) in nonce.chunks_exact_mut(4).zip(self.nonce) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        let socket = UdpSocket::bind((self.own, 0)).await.ok()?;
        let life = u32::try_from(LIFE.as_secs()).unwrap_or(u32::MAX);
        let request = refused::request(self.own, self.port.get(), life, nonce);
        socket.connect((self.gateway, crab_nat::GATEWAY_PORT)).await.ok()?;
        socket.send(&request).await.ok()?;
        // The longest message (RFC 6887, section 7).
        let mut answer = [0; 1100];
        let length = timeout(ONE_ANSWER, socket.recv(&mut answer)).await.ok()?.ok()?;
        refused::outer_in_refusal(&answer[..length], nonce)
    }

    /// Give the mapping back. `at` is where it stands, if it was ever granted.
    pub(super) async fn release(&self, protocol: MappingProtocol, at: Option<SocketAddr>) {
        let single =
            pcp::DropMappingRange::Single { internal_port: self.port, protocol: InternetProtocol::Udp };
        let patience = Some(PATIENCE);
        let outcome = match protocol {
            MappingProtocol::Pcp => {
                pcp::try_drop_mapping(self.gateway4(), self.own.into(), self.nonce, single, patience)
                    .await
                    .map_err(|why| why.to_string())
            }
            MappingProtocol::NatPmp => {
                natpmp::try_drop_mapping(self.gateway4(), InternetProtocol::Udp, Some(self.port), patience)
                    .await
                    .map_err(|why| why.to_string())
            }
            MappingProtocol::Upnp => match (&self.igd, at) {
                (Some(igd), Some(at)) => igd.delete(at.port()).await,
                _ => Ok(()),
            },
        };
        if let Err(why) = outcome {
            tracing::debug!(protocol = protocol.name(), "the mapping was not taken back: {why}");
        }
    }

    /// The same number outside as inside, if the router has it: one that a person can forward or allow.
    fn options(&self, last: Option<SocketAddr>, life: Duration) -> PortMappingOptions {
        let external = last.and_then(|at| NonZeroU16::new(at.port())).unwrap_or(self.port);
        PortMappingOptions {
            external_port: Some(external),
            lifetime_seconds: Some(u32::try_from(life.as_secs()).unwrap_or(u32::MAX)),
            timeout_config: Some(PATIENCE),
        }
    }

    const fn gateway4(&self) -> GatewayAddress {
        GatewayAddress::IpV4(self.gateway)
    }
}

fn grant(mapping: &PortMapping, external: IpAddr) -> Grant {
    // PCP writes IPv4 addresses as mapped IPv6 ones (RFC 6887, section 5).
    let external = match external {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(external, IpAddr::V4),
        IpAddr::V4(_) => external,
    };
    Grant {
        at: SocketAddr::new(external, mapping.external_port().get()),
        life: Duration::from_secs(u64::from(mapping.lifetime())),
        epoch: Some(mapping.gateway_epoch()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_of_one_node_at_one_place() {
        let (gateway, own) = (Ipv4Addr::new(192, 168, 1, 1), Ipv4Addr::new(192, 168, 1, 7));
        let nonce = Nonces::new(&[1; 32]).of(gateway, own);
        assert_eq!(nonce, Nonces::new(&[1; 32]).of(gateway, own));
        assert_ne!(nonce, Nonces::new(&[2; 32]).of(gateway, own));
        assert_ne!(nonce, Nonces::new(&[1; 32]).of(gateway, Ipv4Addr::new(192, 168, 1, 8)));
        assert!(nonce.iter().all(|word| *word != 0));
    }
}
