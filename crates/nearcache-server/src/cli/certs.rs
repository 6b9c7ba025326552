//! `nearcache certs`: an authority, a secret and certificates to try mutual TLS among peers with.
//!
//! For trying, and for small clusters: whoever has the authority's key can make peers. A cluster with
//! an authority of its own needs none of this but the names, which `docs/security.md` tells.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nearcache::{PeerTls, PeerTlsFiles};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::failure::{Failure, chain};

/// Random bytes of a secret; it is written as twice as many characters.
const SECRET_BYTES: usize = 32;

/// How long the authority is valid: long enough that only certificates need to be renewed.
const AUTHORITY_DAYS: u64 = 10 * 365;

/// By how much clocks may differ without a new certificate being refused.
const CLOCK_SLACK: Duration = Duration::from_secs(60 * 60);

const SECRET_MODE: u32 = 0o600;
const PUBLIC_MODE: u32 = 0o644;

#[derive(Debug, clap::Args)]
pub(super) struct CertsArgs {
    /// Names of the nodes to make certificates for [default: node-1 node-2 node-3]
    #[arg(value_name = "NODE", value_parser = file_name)]
    nodes: Vec<String>,
    /// The cluster's name (node.cluster); certificates are for this cluster alone
    #[arg(long, value_name = "NAME", default_value = "nearcache", value_parser = cluster_name)]
    cluster: String,
    /// Where to write
    #[arg(long, short, value_name = "FOLDER", default_value = "certs")]
    dir: PathBuf,
    /// How long the nodes' certificates are valid, in days
    #[arg(long, value_name = "DAYS", default_value_t = 365,
          value_parser = clap::value_parser!(u64).range(1..=AUTHORITY_DAYS))]
    days: u64,
    /// Replace the certificates and keys of these nodes; a running node takes them up by itself
    #[arg(long)]
    renew: bool,
}

/// Makes what is asked for and says what to do with it.
pub(super) fn run(args: &CertsArgs) -> Result<(), Failure> {
    let default_nodes = ["node-1", "node-2", "node-3"].map(str::to_owned);
    let nodes = match args.nodes.as_slice() {
        [] => &default_nodes[..],
        nodes => nodes,
    };
    let folder = Folder::open(&args.dir)?;
    if !args.renew
        && let Some(there) = nodes.iter().find(|node| folder.has(&format!("{node}.pem")))
    {
        return Err(Failure::misuse(format!(
            "{} is there already; name other nodes, or replace it with --renew",
            folder.path(&format!("{there}.pem")).display()
        )));
    }
    let authority = authority(&folder, &args.cluster)?;
    if !folder.has("secret") {
        folder.write("secret", &secret()?, SECRET_MODE)?;
    }
    for node in nodes {
        let (certificate, key) = certificate(&authority, &args.cluster, node, args.days)?;
        // The key first: a node that looks in between finds a pair that does not fit, and waits.
        folder.write(&format!("{node}.key"), &key, SECRET_MODE)?;
        folder.write(&format!("{node}.pem"), &certificate, PUBLIC_MODE)?;
        check(&folder, &args.cluster, node)?;
    }
    let _ = io::stdout().write_all(next_steps(args, &folder, nodes).as_bytes());
    Ok(())
}

/// The folder that is written to.
struct Folder(PathBuf);

impl Folder {
    /// Makes the folder if it is not there, for its owner alone.
    fn open(path: &Path) -> Result<Self, Failure> {
        let failed = |error: io::Error| {
            Failure::misuse(format!(
                "cannot make the folder {}: {error}",
                path.display()
            ))
        };
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(path).map_err(failed)?;
        Ok(Self(path.canonicalize().map_err(failed)?))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    fn read(&self, name: &str) -> Result<String, Failure> {
        let path = self.path(name);
        std::fs::read_to_string(&path)
            .map_err(|error| Failure::misuse(format!("cannot read {}: {error}", path.display())))
    }

    /// Writes the file whole or not at all, never readable by more than `mode` allows.
    fn write(&self, name: &str, text: &str, mode: u32) -> Result<(), Failure> {
        let path = self.path(name);
        let temporary = self.path(&format!(".{name}.{}", std::process::id()));
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| std::fs::rename(&temporary, &path));
        written.map_err(|error| {
            let _ = std::fs::remove_file(&temporary);
            Failure::misuse(format!("cannot write {}: {error}", path.display()))
        })
    }
}

/// The authority in the folder, made if there is none.
fn authority(folder: &Folder, cluster: &str) -> Result<Issuer<'static, KeyPair>, Failure> {
    let mut params = CertificateParams::default();
    let name = format!("Nearcache authority of {cluster}");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, AUTHORITY_DAYS);
    if folder.has("ca.pem") || folder.has("ca.key") {
        // What was made before is the same but for its dates, and those are not in what it signs.
        let key = KeyPair::from_pem(&folder.read("ca.key")?).map_err(|error| {
            let path = folder.path("ca.key");
            Failure::misuse(format!("{} is no private key: {error}", path.display()))
        })?;
        return Ok(Issuer::new(params, key));
    }
    let key = KeyPair::generate().map_err(cannot_make)?;
    let certificate = params.self_signed(&key).map_err(cannot_make)?;
    folder.write("ca.key", &key.serialize_pem(), SECRET_MODE)?;
    folder.write("ca.pem", &certificate.pem(), PUBLIC_MODE)?;
    Ok(Issuer::new(params, key))
}

/// The certificate of a node and its key, both PEM.
fn certificate(
    authority: &Issuer<'static, KeyPair>,
    cluster: &str,
    node: &str,
    days: u64,
) -> Result<(String, String), Failure> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, node);
    let name = Ia5String::try_from(PeerTls::uri_name(cluster, node)).map_err(cannot_make)?;
    params.subject_alt_names = vec![SanType::URI(name)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // A node is at one end of some connections and at the other of others.
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, days);
    let key = KeyPair::generate().map_err(cannot_make)?;
    let certificate = params.signed_by(&key, authority).map_err(cannot_make)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn set_validity(params: &mut CertificateParams, days: u64) {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(CLOCK_SLACK);
    params.not_after = epoch + now + Duration::from_secs(days * 24 * 60 * 60);
}

/// A secret from the system's randomness, in hexadecimal.
fn secret() -> Result<String, Failure> {
    let mut bytes = [0; SECRET_BYTES];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .map_err(|error| Failure::failed(format!("cannot read /dev/urandom: {error}")))?;
    let mut text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    text.push('\n');
    Ok(text)
}

/// Reads what was written as a node does: a set that does not work is found now.
fn check(folder: &Folder, cluster: &str, node: &str) -> Result<(), Failure> {
    let settings = PeerTls::new(PeerTlsFiles {
        certificate: folder.path(&format!("{node}.pem")),
        key: folder.path(&format!("{node}.key")),
        ca: folder.path("ca.pem"),
        secret: folder.path("secret"),
    });
    match settings.check(cluster) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::misuse(format!(
            "{}; is {} the authority of cluster `{cluster}` made by this command? \
             Use another --dir for another cluster",
            chain(&error),
            folder.path("ca.pem").display()
        ))),
    }
}

fn next_steps(args: &CertsArgs, folder: &Folder, nodes: &[String]) -> String {
    let (dir, cluster, days) = (folder.0.display(), &args.cluster, args.days);
    let first = nodes.first().map_or("node-1", String::as_str);
    let mut text = format!(
        "Certificates for cluster `{cluster}`, valid for {days} days, in {dir}:\n\n\
         \x20 ca.pem   the authority: on every node\n\
         \x20 secret   the cluster's secret: on every node, mode 0600\n"
    );
    for node in nodes {
        text += &format!("  {node}.pem and {node}.key: on {node} alone, the key with mode 0600\n");
    }
    text += &format!(
        "  ca.key   makes more nodes: keep it off the nodes and to yourself\n\n\
         Then, in the configuration of each node, here of {first}:\n\n\
         [node]\nname = \"{first}\"\ncluster = \"{cluster}\"\n\n\
         [peers]\nlisten = \"0.0.0.0:7801\"\n# seeds = [\"another-node:7801\"]\n\n\
         [peers.tls]\n\
         certificate_file = \"{dir}/{first}.pem\"\n\
         key_file = \"{dir}/{first}.key\"\n\
         ca_file = \"{dir}/ca.pem\"\n\
         secret_file = \"{dir}/secret\"\n\n\
         Check it:  nearcache check --config nearcache.toml\n\
         Renew:     nearcache certs --dir {dir} --cluster {cluster} --renew {first}\n\
         \x20          and copy the two files; a running node takes them up by itself.\n"
    );
    text
}

fn cannot_make(error: rcgen::Error) -> Failure {
    Failure::failed(format!("cannot make a certificate: {error}"))
}

/// A node's name that can also name its files.
fn file_name(text: &str) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_free = !["ca", "secret"].contains(&text) && !text.starts_with(['.', '-']);
    if text.len() <= 128 && is_free && text.chars().all(is_allowed) && !text.is_empty() {
        Ok(text.to_owned())
    } else {
        Err("use letters, digits, `-`, `_` and `.`, and neither `ca` nor `secret`".to_owned())
    }
}

fn cluster_name(text: &str) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    if !text.is_empty() && text.len() <= 128 && text.chars().all(is_allowed) {
        Ok(text.to_owned())
    } else {
        Err("use letters, digits, `-`, `_`, `.` and `:`".to_owned())
    }
}
