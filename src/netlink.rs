//! The host's interfaces, addresses and routes, by rtnetlink.
//!
//! Owns: bringing our device up with its addresses, looking for prefixes that clash, knowing which addresses the
//! host has, hearing that this changed. Never: touches an interface that is not ours.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use futures::StreamExt;
use futures::TryStreamExt;
use ipnetwork::IpNetwork;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::{Handle, LinkUnspec, MulticastGroup, RouteMessageBuilder, new_connection, new_multicast_connection};

/// Changes come in bursts (a cable: link, addresses, routes); this long after the first they are told as one.
const SETTLE: Duration = Duration::from_millis(250);

/// What netlink refused.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No netlink socket.
    #[error("cannot ask the kernel about its interfaces: {0}")]
    Socket(#[from] std::io::Error),
    /// Exit code 4.
    #[error("no permission to configure {link}: it needs CAP_NET_ADMIN, run as root")]
    NotPermitted {
        /// The interface.
        link: String,
    },
    /// It vanished.
    #[error("interface {link} is gone: start frejus again")]
    NoLink {
        /// The interface.
        link: String,
    },
    /// Anything else.
    #[error("cannot {what}: {source}")]
    Failed {
        /// What was tried.
        what: String,
        /// What the kernel said.
        source: rtnetlink::Error,
    },
}

/// A netlink socket in the network namespace it was opened in.
#[derive(Clone)]
pub struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// Opens the socket; a task of the surrounding tokio runtime serves it until the last clone is dropped.
    ///
    /// # Errors
    /// The kernel gives no socket.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open() -> Result<Self, NetlinkError> {
        let (connection, handle, _) = new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Gives `link` its addresses and brings it up. `super_packet` bounds what the kernel hands over as one packet,
    /// in segments, so that one read is one send; a kernel that refuses it does without.
    ///
    /// # Errors
    /// [`NetlinkError`], with the interface in it.
    pub async fn bring_up(
        &self,
        link: &str,
        addresses: &[IpNetwork],
        super_packet: u32,
    ) -> Result<(), NetlinkError> {
        let index = self.index(link).await?;
        let segments =
            LinkUnspec::new_with_index(index).append_extra_attribute(LinkAttribute::GsoMaxSegs(super_packet));
        self.handle.link().set(segments.build()).execute().await.ok();
        for address in addresses {
            let mut request = self.handle.address().add(index, address.ip(), address.prefix());
            if address.is_ipv6() {
                // Derived from a key: nobody else can have it, and waiting for nobody to object takes a second.
                request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
            }
            let done = request.replace().execute().await;
            done.map_err(|error| refused(link, format!("give {link} the address {address}"), error))?;
        }
        let up = self.handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await;
        up.map_err(|error| refused(link, format!("bring {link} up"), error))
    }

    /// Every unicast route but the default ones, with the interface it leads to (empty if to none).
    ///
    /// # Errors
    /// [`NetlinkError::Failed`].
    pub async fn routes(&self) -> Result<Vec<(IpNetwork, String)>, NetlinkError> {
        let names = self.names().await?;
        let mut routes = Vec::new();
        for request in [
            RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
        ] {
            let mut dump = self.handle.route().get(request).execute();
            while let Some(route) = dump.try_next().await.map_err(|error| failed("list routes", error))? {
                routes.extend(destination(&route).map(|(to, via)| {
                    let name = via.and_then(|index| names.get(&index)).map(|(name, _)| name.clone());
                    (to, name.unwrap_or_default())
                }));
            }
        }
        Ok(routes)
    }

    /// Addresses by which other hosts may reach this one: of global scope, on interfaces that are up, except
    /// loopback and `own`. Temporary IPv6 addresses count: they are what others see.
    ///
    /// # Errors
    /// [`NetlinkError::Failed`].
    pub async fn host_addresses(&self, own: &str) -> Result<Vec<IpAddr>, NetlinkError> {
        let names = self.names().await?;
        let usable = |index: u32| {
            names.get(&index).is_some_and(|(name, flags)| {
                flags.contains(LinkFlags::Up) && !flags.contains(LinkFlags::Loopback) && name != own
            })
        };
        let mut addresses = Vec::new();
        let mut dump = self.handle.address().get().execute();
        while let Some(message) = dump.try_next().await.map_err(|error| failed("list addresses", error))? {
            if message.header.scope == AddressScope::Universe && usable(message.header.index) {
                addresses.extend(host_address(&message));
            }
        }
        addresses.sort_unstable();
        addresses.dedup();
        Ok(addresses)
    }

    async fn index(&self, link: &str) -> Result<u32, NetlinkError> {
        let mut links = self.handle.link().get().match_name(link.to_owned()).execute();
        match links.try_next().await {
            Ok(Some(message)) => Ok(message.header.index),
            _ => Err(NetlinkError::NoLink { link: link.to_owned() }),
        }
    }

    async fn names(&self) -> Result<HashMap<u32, (String, LinkFlags)>, NetlinkError> {
        let mut names = HashMap::new();
        let mut links = self.handle.link().get().execute();
        while let Some(message) = links.try_next().await.map_err(|error| failed("list interfaces", error))? {
            let name = message.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name.clone()),
                _ => None,
            });
            names.insert(message.header.index, (name.unwrap_or_default(), message.header.flags));
        }
        Ok(names)
    }
}

/// Calls `changed` whenever an address, a route or an interface of this namespace changed, from a task of the
/// surrounding tokio runtime, until it returns `false`.
///
/// # Errors
/// The kernel gives no socket.
///
/// # Panics
/// Outside a tokio runtime.
pub fn watch(mut changed: impl FnMut() -> bool + Send + 'static) -> Result<(), NetlinkError> {
    let (connection, _, mut messages) = new_multicast_connection(&[
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ])?;
    tokio::spawn(async move {
        let serving = tokio::spawn(connection);
        while messages.next().await.is_some() {
            tokio::time::sleep(SETTLE).await;
            while let Ok(_more) = messages.try_recv() {}
            if !changed() {
                break;
            }
        }
        serving.abort();
    });
    Ok(())
}

fn destination(route: &RouteMessage) -> Option<(IpNetwork, Option<u32>)> {
    let prefix = route.header.destination_prefix_length;
    let unicast = matches!(route.header.kind, RouteType::Unicast | RouteType::Local);
    let inet = matches!(route.header.address_family, AddressFamily::Inet | AddressFamily::Inet6);
    if !unicast || !inet || prefix == 0 {
        return None;
    }
    let mut to = None;
    let mut via = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(at)) => to = Some(IpAddr::from(*at)),
            RouteAttribute::Destination(RouteAddress::Inet6(at)) => to = Some(IpAddr::from(*at)),
            RouteAttribute::Oif(index) => via = Some(*index),
            _ => {}
        }
    }
    Some((IpNetwork::new(to?, prefix).ok()?, via))
}

/// On a point-to-point link `Local` is ours and `Address` the other end's.
fn host_address(message: &AddressMessage) -> Option<IpAddr> {
    let find = |local: bool| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(at) if local => Some(*at),
            AddressAttribute::Address(at) if !local => Some(*at),
            _ => None,
        })
    };
    find(true).or_else(|| find(false))
}

fn refused(link: &str, what: String, source: rtnetlink::Error) -> NetlinkError {
    match &source {
        rtnetlink::Error::NetlinkError(message) if matches!(-message.raw_code(), 1 | 13) => {
            NetlinkError::NotPermitted { link: link.to_owned() }
        }
        rtnetlink::Error::NetlinkError(message) if -message.raw_code() == 19 => {
            NetlinkError::NoLink { link: link.to_owned() }
        }
        _ => NetlinkError::Failed { what, source },
    }
}

fn failed(what: &str, source: rtnetlink::Error) -> NetlinkError {
    NetlinkError::Failed { what: what.to_owned(), source }
}
