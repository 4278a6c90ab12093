//! TLS for streams: a coat in which datagrams pass boxes that let nothing else through.
//!
//! Owns: both sides' configuration, and the certificate that this process makes for itself. Never: trust. Whoever is at
//! the other end proves itself in the WireGuard handshake that the stream carries, so no certificate is checked, and a box
//! that opens the coat sees what any router on a UDP path sees.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// The name in the certificate; nobody reads it.
const NAME: &str = "frejus";
/// Plain text that may wait in a session beside what [`super::outlet`] bounds: one TLS record.
const BUFFERED: usize = 16 << 10;

/// See the module.
#[derive(Clone)]
pub(super) struct Coat {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl Coat {
    /// With a key and a certificate of its own.
    pub(super) fn new() -> Result<Self, io::Error> {
        let certified = rcgen::generate_simple_self_signed([NAME.to_owned()]).map_err(io::Error::other)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certified.key_pair.serialize_der()));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let server = server.with_protocol_versions(&[&rustls::version::TLS13]).map_err(io::Error::other)?;
        let mut server = server
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .map_err(io::Error::other)?;
        // Nothing is kept for somebody who has left.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let client = client.with_protocol_versions(&[&rustls::version::TLS13]).map_err(io::Error::other)?;
        let mut client = client
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_no_client_auth();
        client.resumption = Resumption::disabled();
        Ok(Self { acceptor: Arc::new(server).into(), connector: Arc::new(client).into() })
    }

    /// The listening side.
    pub(super) async fn accept(&self, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let mut stream = self.acceptor.accept(socket).await?;
        stream.get_mut().1.set_buffer_limit(Some(BUFFERED));
        Ok(stream.into())
    }

    /// The side that dialled `to`.
    pub(super) async fn connect(
        &self,
        socket: TcpStream,
        to: SocketAddr,
    ) -> io::Result<TlsStream<TcpStream>> {
        let mut stream = self.connector.connect(ServerName::from(to.ip()), socket).await?;
        stream.get_mut().1.set_buffer_limit(Some(BUFFERED));
        Ok(stream.into())
    }
}

/// Takes any certificate; see the module.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::TcpStream as StdStream;

    use rustls::{ClientConnection, StreamOwned};

    use super::*;

    /// A client of its own, blocking, for tests of the listening side.
    pub(crate) fn client(at: SocketAddr, socket: StdStream) -> StreamOwned<ClientConnection, StdStream> {
        let config = Arc::clone(Coat::new().unwrap().connector.config());
        StreamOwned::new(ClientConnection::new(config, ServerName::from(at.ip())).unwrap(), socket)
    }
}
