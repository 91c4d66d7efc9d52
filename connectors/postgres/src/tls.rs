//! TLS to PostgreSQL: the only file that names the TLS library. Files are read at each connection, so that renewed
//! certificates are taken without a restart.
//!
//! What is checked: `verify-full` chain and name; `verify-ca`, and weaker modes with `sslrootcert`, the chain alone;
//! without `sslrootcert` nothing but that the server holds its key. A server whose own certificate is the trusted one
//! (self-signed, the usual first set-up) is taken, as libpq takes it. Not done: revocation lists, a name that stands
//! only in the certificate's CN.

use crate::config::{ClientCert, Host, RootCert, SslMode, TlsConfig};
use crate::dial::Buffered;
use crate::fault::Fault;
use std::fmt::Debug;
use std::sync::Arc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore,
    SignatureScheme,
};

/// Bundles of trusted authorities, where the usual systems keep them.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Names the bundle instead. Source: OpenSSL, `X509_get_default_cert_file_env`.
const BUNDLE_VARIABLE: &str = "SSL_CERT_FILE";

/// The handshake. `stream` has said SSLRequest and the server has agreed.
pub async fn handshake(config: &TlsConfig, host: &Host, stream: Buffered) -> Result<TlsStream<Buffered>, Fault> {
    let client = client(config)?;
    let name = ServerName::try_from(host.name.clone())
        .map_err(|_| Fault::Tls(format!("host '{}' is no name a certificate could have", host.name)))?;
    TlsConnector::from(Arc::new(client)).connect(name, stream).await.map_err(|e| fault_of(&e))
}

/// A fault of a connection that may be TLS's.
pub fn fault_of(e: &std::io::Error) -> Fault {
    match e.get_ref().and_then(|e| e.downcast_ref::<Error>()) {
        Some(e) => Fault::Tls(text(e)),
        None => Fault::Closed(e.to_string()),
    }
}

fn text(e: &Error) -> String {
    match e {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => UNSIGNED.into(),
        Error::InvalidCertificate(CertificateError::Other(why)) if is_authority(why) => UNSIGNED.into(),
        Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. }) => {
            format!("the server's certificate is not the host's, but that of: {}", presented.join(", "))
        }
        Error::AlertReceived(
            AlertDescription::CertificateRequired | AlertDescription::UnknownCA | AlertDescription::BadCertificate,
        ) => format!("the server does not accept our certificate ({e})"),
        e => e.to_string(),
    }
}

const UNSIGNED: &str = "the server's certificate is not signed by an authority of sslrootcert";

/// The library's word for a server's certificate that may sign others.
fn is_authority(why: &OtherError) -> bool {
    why.to_string().contains("CaUsedAsEndEntity")
}

fn client(config: &TlsConfig) -> Result<ClientConfig, Fault> {
    let provider = Arc::new(ring::default_provider());
    let roots = match &config.root {
        RootCert::None => None,
        RootCert::System => Some(roots(&bundle()?)?),
        RootCert::File(file) => Some(roots(file)?),
    };
    let verifier = Verifier { provider: provider.clone(), roots, name: config.mode == SslMode::VerifyFull };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Fault::Tls(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    match &config.client {
        None => Ok(builder.with_no_client_auth()),
        Some(ClientCert { cert, key }) => {
            let chain = certificates(cert)?;
            let key = PrivateKeyDer::from_pem_slice(&read(key)?)
                .map_err(|e| Fault::Tls(format!("{key} holds no private key without passphrase: {e}")))?;
            builder.with_client_auth_cert(chain, key).map_err(|e| Fault::Tls(format!("{cert}: {e}")))
        }
    }
}

fn read(file: &str) -> Result<Vec<u8>, Fault> {
    std::fs::read(file).map_err(|e| Fault::Tls(format!("cannot read {file}: {e}")))
}

fn certificates(file: &str) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(file)?).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(Fault::Tls(format!("{file} holds no certificate in PEM form"))),
        Err(e) => Err(Fault::Tls(format!("{file}: {e}"))),
    }
}

/// Certificates we trust, and the list as it stood in the file: a server may show one of them itself.
#[derive(Debug)]
struct Roots {
    store: RootCertStore,
    listed: Vec<CertificateDer<'static>>,
}

fn roots(file: &str) -> Result<Roots, Fault> {
    let listed = certificates(file)?;
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(listed.iter().cloned());
    Ok(Roots { store, listed })
}

fn bundle() -> Result<String, Fault> {
    if let Ok(file) = std::env::var(BUNDLE_VARIABLE) {
        return Ok(file);
    }
    let found = BUNDLES.into_iter().find(|f| std::path::Path::new(f).exists());
    found.map(str::to_owned).ok_or_else(|| {
        Fault::Tls(format!("this system has no bundle of authorities where we look; name it in {BUNDLE_VARIABLE}"))
    })
}

#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// `None` = any certificate will do.
    roots: Option<Roots>,
    /// The name counts, too.
    name: bool,
}

impl Verifier {
    fn chain(
        &self,
        roots: &Roots,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        let parsed = ParsedCertificate::try_from(leaf)?;
        match verify_server_cert_signed_by_trust_anchor(&parsed, &roots.store, between, now, algorithms) {
            // Dates were looked at before.
            Err(Error::InvalidCertificate(CertificateError::Other(why)))
                if is_authority(&why) && roots.listed.iter().any(|r| r == leaf) =>
            {
                Ok(())
            }
            other => other,
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(roots) = &self.roots {
            self.chain(roots, leaf, between, now)?;
        }
        if self.name {
            verify_server_name(&ParsedCertificate::try_from(leaf)?, host)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(trusted: &[u8], shown: &[u8], host: &str, name: bool) -> Result<(), String> {
        let list = |pem: &[u8]| CertificateDer::pem_slice_iter(pem).map(|c| c.unwrap()).collect::<Vec<_>>();
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(list(trusted));
        let roots = Some(Roots { store, listed: list(trusted) });
        let v = Verifier { provider: Arc::new(ring::default_provider()), roots, name };
        // 2027, inside of both certificates' hundred years.
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000));
        let host = ServerName::try_from(host.to_owned()).unwrap();
        v.verify_server_cert(&list(shown)[0], &[], &host, &[], now).map(|_| ()).map_err(|e| text(&e))
    }

    #[test]
    fn a_self_signed_certificate_is_its_own_authority_and_nobody_elses() {
        // Made by: openssl req -x509 -subj /CN=… -addext subjectAltName=DNS:db.example (so CA:TRUE, as that command does).
        let (own, other) = (include_bytes!("tls/self.pem"), include_bytes!("tls/other.pem"));
        assert_eq!(check(own, own, "db.example", true), Ok(()));
        assert_eq!(check(own, own, "elsewhere.example", false), Ok(()));
        let e = check(own, own, "elsewhere.example", true).unwrap_err();
        assert!(e.contains("not the host's") && e.contains("db.example"), "{e}");
        let e = check(own, other, "db.example", false).unwrap_err();
        assert!(e.contains("not signed by an authority"), "{e}");
        // One that is trusted does not make another's, whoever shows it.
        let both = [&own[..], &other[..]].concat();
        assert_eq!(check(&both, other, "db.example", true), Ok(()));
    }
}
