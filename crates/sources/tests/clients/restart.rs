//! With a state folder, sessions, subscriptions, queued and retained messages survive the process's broker.

use twinlake_sources::BrokerOptions;

use crate::mosquitto::{programs, publish};
use crate::support::{Stand, run, succeed};

#[test]
fn sessions_and_retained_messages_survive_a_restart() {
    let Some((publisher, subscriber)) = programs() else { return };
    let folder = tempfile::tempdir().expect("folder");
    let options = || BrokerOptions { state: Some(folder.path().join("state")), ..BrokerOptions::default() };
    let session = ["-V", "5", "-i", "absent", "-c", "-x", "3600", "-q", "2", "-t", "later/#"];

    let mut stand = Stand::new(options());
    let port = stand.port().to_string();
    let mut first = vec!["-p", &port, "-E"];
    first.extend_from_slice(&session);
    succeed(&subscriber, &first);
    for qos in ["1", "2"] {
        publish(&stand, &publisher, &["-q", qos, "-t", "later/a", "-m", qos]);
    }
    publish(
        &stand,
        &publisher,
        &["-V", "5", "-r", "-q", "1", "-t", "kept/a", "-m", "1", "-D", "publish", "user-property", "k", "v"],
    );
    publish(&stand, &publisher, &["-r", "-q", "1", "-t", "kept/b", "-m", "2"]);
    publish(&stand, &publisher, &["-r", "-q", "1", "-t", "kept/b", "-n"]);
    stand.stop();

    let mut stand = Stand::new(options());
    let port = stand.port().to_string();
    publish(&stand, &publisher, &["-q", "1", "-t", "later/b", "-m", "after"]);
    let mut again = vec!["-p", &port, "-C", "3", "-W", "20"];
    again.extend_from_slice(&session);
    let found = succeed(&subscriber, &again);
    // The client hands a message of QoS 2 over when its handshake is complete, after those that came behind it.
    let mut found: Vec<&str> = found.lines().collect();
    found.sort_unstable();
    assert_eq!(found, ["1", "2", "after"]);
    let kept = ["-p", &port, "-V", "5", "-t", "kept/#", "-F", "%t %p %P", "--retained-only", "-W", "1"];
    assert_eq!(String::from_utf8_lossy(&run(&subscriber, &kept).stdout).trim(), "kept/a 1 k:v");
    stand.stop();

    let mut stand = Stand::new(options());
    let port = stand.port().to_string();
    let mut nothing = vec!["-p", &port, "-W", "1"];
    nothing.extend_from_slice(&session);
    assert!(run(&subscriber, &nothing).stdout.is_empty(), "what was delivered is not delivered again");
    stand.stop();
}

#[test]
fn two_processes_share_an_address_when_told_to() {
    let options = || BrokerOptions { reuse_port: true, ..BrokerOptions::default() };
    let Some((publisher, _)) = programs() else { return };
    // A process has one broker per address; another one there is another process, here a bare socket.
    let mut stand = Stand::on("127.0.0.4:0", options());
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
    socket.set_reuse_port(true).expect("option");
    let address = stand.broker().local_addr();
    assert!(socket.bind(&address.into()).is_ok(), "the port can be shared");
    drop(socket);
    let port = stand.port().to_string();
    succeed(&publisher, &["-h", "127.0.0.4", "-p", &port, "-q", "1", "-t", "record/x", "-m", "1"]);
    assert_eq!(stand.recorded().1, "1");
    stand.stop();

    let alone = Stand::on("127.0.0.4:0", BrokerOptions::default());
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
    socket.set_reuse_port(true).expect("option");
    assert!(socket.bind(&alone.broker().local_addr().into()).is_err(), "and not otherwise");
}
