//! Whom to believe: the system's certificate authorities, and those that `certs.d` directories add for
//! one registry (containers-certs.d(5)): `*.crt` are authorities, `NAME.cert` with `NAME.key` is what
//! this side shows.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use super::{Endpoint, RegistryError};

const SYSTEM: [&str; 2] = ["/etc/containers/certs.d", "/etc/docker/certs.d"];
/// More than any real file of certificates has.
const FILE_MAX: u64 = 16 << 20;

/// The TLS settings for a registry. `cert_dir` is used instead of the system's directories.
///
/// # Errors
/// If a file of certificates cannot be used.
pub(super) fn settings(
    endpoint: &Endpoint,
    cert_dir: Option<&Path>,
) -> Result<TlsConfig, RegistryError> {
    let mut authorities = Vec::new();
    let mut shown = None;
    for dir in directories(endpoint, cert_dir) {
        for path in files(&dir, cert_dir.is_some())? {
            match path.extension().and_then(|e| e.to_str()) {
                Some("crt") => authorities.extend(certificates(&path)?),
                Some("cert") => shown = Some(client(&path)?),
                _ => {}
            }
        }
    }
    let roots = if authorities.is_empty() && endpoint.insecure {
        // Nothing is verified: what the system believes need not be read.
        RootCerts::WebPki
    } else {
        let loaded = rustls_native_certs::load_native_certs();
        for error in &loaded.errors {
            tracing::debug!(%error, "a certificate of the system cannot be used");
        }
        let system = loaded.certs.iter();
        authorities.extend(system.map(|c| Certificate::from_der(c).to_owned()));
        if authorities.is_empty() {
            RootCerts::WebPki
        } else {
            RootCerts::Specific(Arc::new(authorities))
        }
    };
    Ok(TlsConfig::builder()
        .root_certs(roots)
        .client_cert(shown)
        .disable_verification(endpoint.insecure)
        .build())
}

fn directories(endpoint: &Endpoint, cert_dir: Option<&Path>) -> Vec<PathBuf> {
    if let Some(dir) = cert_dir {
        return vec![dir.to_owned()];
    }
    let own = super::config_home().map(|dir| dir.join("containers/certs.d"));
    let tops = own.into_iter().chain(SYSTEM.map(PathBuf::from));
    tops.map(|top| top.join(&endpoint.name)).collect()
}

/// The files of a directory, sorted; one that is not there has none, unless it `must`.
fn files(dir: &Path, must: bool) -> Result<Vec<PathBuf>, RegistryError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e)
            if !must
                && matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
                ) =>
        {
            return Ok(Vec::new());
        }
        Err(e) => return Err(RegistryError::io("list", dir)(e)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(RegistryError::io("list", dir))?.path());
    }
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<Vec<u8>, RegistryError> {
    let meta = fs::metadata(path).map_err(RegistryError::io("read", path))?;
    if meta.len() > FILE_MAX {
        return Err(bad(path, "it is too large for a file of certificates"));
    }
    fs::read(path).map_err(RegistryError::io("read", path))
}

fn bad(path: &Path, why: impl Into<String>) -> RegistryError {
    RegistryError::File {
        path: path.to_owned(),
        why: why.into(),
    }
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, RegistryError> {
    let text = read(path)?;
    let mut found = Vec::new();
    for item in parse_pem(&text) {
        let item =
            item.map_err(|e| bad(path, format!("it is no PEM file of certificates ({e})")))?;
        if let PemItem::Certificate(certificate) = item {
            found.push(certificate.to_owned());
        }
    }
    if found.is_empty() {
        return Err(bad(path, "there is no PEM certificate in it"));
    }
    Ok(found)
}

fn client(path: &Path) -> Result<ClientCert, RegistryError> {
    let key_path = path.with_extension("key");
    let text = read(&key_path)?;
    let key = PrivateKey::from_pem(&text)
        .map_err(|_| bad(&key_path, "there is no PEM private key in it"))?;
    let chain = certificates(path)?;
    usable(&chain, &key)
        .map_err(|why| bad(path, format!("it is no certificate to show: {why}")))?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

/// Whether TLS can show this certificate: ureq takes for granted that it can.
fn usable(chain: &[Certificate<'static>], key: &PrivateKey<'static>) -> Result<(), rustls::Error> {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    let key = PrivateKeyDer::try_from(key.der().to_vec())
        .map_err(|why| rustls::Error::General(why.to_owned()))?;
    let chain = chain.iter().map(|c| CertificateDer::from(c.der().to_vec()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_client_auth_cert(chain.collect(), key)
        .map(drop)
}
