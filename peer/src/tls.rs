//! What QUIC needs of TLS, and how QUIC is set up: cubic on both sides and windows that never limit a download, as the
//! TCP side has them.

use std::{fs, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, ServerConfig, TransportConfig, VarInt};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

/// The name in the certificate.
pub const NAME: &str = "bench.invalid";
/// RFC 9114, section 3.1.
const ALPN: &[u8] = b"h3";
/// Twice the bandwidth-delay product of the longest and fastest link measured (100 Mbit/s, 200 ms).
pub const STREAM_WINDOW: u32 = 8 << 20;
/// For the connection: room for a download and the small ones beside it.
pub const CONNECTION_WINDOW: u32 = 16 << 20;

fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .congestion_controller_factory(Arc::new(CubicConfig::default()))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(CONNECTION_WINDOW.into())
        .max_concurrent_bidi_streams(VarInt::from_u32(10_000))
        .keep_alive_interval(Some(Duration::from_secs(1)));
    Arc::new(transport)
}

/// A server with a fresh certificate, which is written to `file` for clients to trust.
pub fn server(file: &Path) -> Result<ServerConfig> {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let certificate = made.cert.der().clone();
    let mut tls = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(transport());
    fs::write(file, &certificate).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(config)
}

/// A client that trusts the certificate in `file` and no other.
pub fn client(file: &Path) -> Result<ClientConfig> {
    let certificate = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(certificate))?;
    let mut tls = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(transport());
    Ok(config)
}
