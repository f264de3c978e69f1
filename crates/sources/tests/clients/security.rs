//! TLS, client certificates, users, tokens and rules with `mosquitto_pub` and `mosquitto_sub`.

use std::path::Path;

use jsonwebtoken::{EncodingKey, Header, encode};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::json;
use twinlake_sources::{BrokerOptions, hash_password};

use crate::mosquitto::programs;
use crate::support::{Stand, run, succeed};

/// Writes an authority, the broker's certificate and one for the device `tram-7` into a folder.
fn certificates(folder: &Path) {
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text).expect("write");
    let authority_key = KeyPair::generate().expect("key");
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "test authority");
    let signed = authority.self_signed(&authority_key).expect("authority");
    write("ca.pem", signed.pem());
    let issuer = Issuer::new(authority, authority_key);
    for (name, subject) in [("broker", "broker"), ("device", "tram-7")] {
        let key = KeyPair::generate().expect("key");
        let mut params =
            CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("names");
        params.distinguished_name.push(DnType::CommonName, subject);
        write(&format!("{name}.pem"), params.signed_by(&key, &issuer).expect("certificate").pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
}

#[test]
fn a_client_certificate_is_the_user() {
    let Some((publisher, subscriber)) = programs() else { return };
    let folder = tempfile::tempdir().expect("folder");
    certificates(folder.path());
    let text = "[tls]\ncertificate = 'broker.pem'\nkey = 'broker.key'\nclient_authority = 'ca.pem'\n\
                [[rules]]\npublish = ['record/%u/#']\nsubscribe = ['#']\n";
    std::fs::write(folder.path().join("broker.toml"), text).expect("write");
    let options = BrokerOptions::read(&folder.path().join("broker.toml")).expect("options");
    let mut stand = Stand::new(options);
    let port = stand.port().to_string();
    let file = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (ca, certificate, key) = (file("ca.pem"), file("device.pem"), file("device.key"));
    let base = ["-h", "127.0.0.1", "-p", &port, "-V", "5", "-q", "1", "-m", "x", "--cafile", &ca];
    let with = |more: &[&str]| {
        let mut arguments = base.to_vec();
        arguments.extend_from_slice(more);
        run(&publisher, &arguments)
    };
    let shown = ["--cert", &certificate, "--key", &key];
    let mut own = shown.to_vec();
    own.extend_from_slice(&["-t", "record/tram-7/speed"]);
    assert!(with(&own).status.success());
    assert_eq!(stand.recorded().0, "record/tram-7/speed");
    let mut foreign = shown.to_vec();
    foreign.extend_from_slice(&["-t", "record/tram-8/speed"]);
    with(&foreign);
    assert!(!with(&["-t", "record/tram-7/speed"]).status.success(), "no certificate, no connection");
    stand.nothing_more();
    assert_eq!(stand.broker().stats().refused, 1);

    // Much in both directions.
    let lines = folder.path().join("lines");
    let text: Vec<String> = (0..3000).map(|number| format!("{number:0>800}")).collect();
    std::fs::write(&lines, text.join("\n") + "\n").expect("write");
    let tls =
        ["-h", "127.0.0.1", "-p", &port, "--cafile", &ca, "--cert", &certificate, "--key", &key, "-q", "1"];
    let mut listening = tls.to_vec();
    listening.extend_from_slice(&["-t", "record/#", "-C", "3000", "-W", "25"]);
    let listener = std::process::Command::new(&subscriber)
        .args(&listening)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the subscriber starts");
    stand.connections(1);
    std::thread::sleep(std::time::Duration::from_millis(300));
    let mut sending = std::process::Command::new(&publisher);
    sending.args(tls).args(["-t", "record/tram-7/speed", "-l"]);
    sending.stdin(std::fs::File::open(&lines).expect("file"));
    assert!(sending.status().expect("status").success());
    let heard = listener.wait_with_output().expect("output").stdout;
    assert_eq!(String::from_utf8_lossy(&heard).lines().collect::<Vec<_>>(), text);
    stand.stop();
}

#[test]
fn users_tokens_and_rules() {
    let Some((publisher, subscriber)) = programs() else { return };
    let folder = tempfile::tempdir().expect("folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("write");
    write(
        "users",
        &format!("anna:{}\nmap:{}\n", hash_password("a").expect("hash"), hash_password("m").expect("hash")),
    );
    let secret = "0123456789abcdef0123456789abcdef";
    write("key", secret);
    write(
        "broker.toml",
        "users = 'users'\ntoken = { algorithm = 'HS256', key = 'key' }\n\
         [[rules]]\nusers = ['anna']\npublish = ['record/anna/#']\n\
         [[rules]]\nusers = ['map']\nsubscribe = ['record/#']\n",
    );
    let options = BrokerOptions::read(&folder.path().join("broker.toml")).expect("options");
    let mut stand = Stand::new(options);
    let port = stand.port().to_string();
    let sent = |version: &str, user: &str, password: &str, topic: &str| {
        let arguments =
            ["-p", &port, "-V", version, "-u", user, "-P", password, "-q", "1", "-t", topic, "-m", "x"];
        run(&publisher, &arguments).status.success()
    };
    for version in ["311", "5"] {
        assert!(sent(version, "anna", "a", "record/anna/1"));
        assert_eq!(stand.recorded().0, "record/anna/1");
        assert!(!sent(version, "anna", "wrong", "record/anna/1"));
        assert!(!sent(version, "otto", "a", "record/anna/1"));
        sent(version, "anna", "a", "record/other");
        stand.nothing_more();
        let refused = run(&publisher, &["-p", &port, "-V", version, "-t", "record/anna/1", "-m", "x"]);
        assert!(!refused.status.success(), "not anonymous");
    }
    let later = jsonwebtoken::get_current_timestamp() + 600;
    let claims = json!({"sub": "car", "exp": later, "publish": ["record/car/%c"]});
    let token =
        encode(&Header::default(), &claims, &EncodingKey::from_secret(secret.as_bytes())).expect("token");
    succeed(
        &publisher,
        &["-p", &port, "-i", "c1", "-u", "any", "-P", &token, "-q", "1", "-t", "record/car/c1", "-m", "x"],
    );
    assert_eq!(stand.recorded().0, "record/car/c1");
    let refused =
        run(&subscriber, &["-p", &port, "-V", "5", "-u", "map", "-P", "m", "-t", "#", "-W", "2", "-E"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("denied"), "{refused:?}");
    succeed(
        &subscriber,
        &["-p", &port, "-V", "5", "-u", "map", "-P", "m", "-t", "record/+", "-W", "5", "-E"],
    );
    stand.stop();
}
