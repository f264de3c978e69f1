//! Addresses of people and machines in networks.

use std::net::{Ipv4Addr, Ipv6Addr};

/// An e-mail address as people write them: a local part of the usual characters and a domain with a top level of letters
/// (a part of RFC 5321; quoted local parts and addresses with a number for the host are left out).
pub(super) fn is_email(value: &str) -> bool {
    let Some((local, domain)) = value.rsplit_once('@') else { return false };
    let usual = |c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
    if local.is_empty()
        || local.len() > 64
        || !local.chars().all(usual)
        || local.starts_with('.')
        || local.ends_with('.')
    {
        return false;
    }
    let labels: Vec<&str> = domain.split('.').collect();
    let label = |label: &&str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
    };
    let top = labels.last().copied().unwrap_or_default();
    labels.len() >= 2
        && labels.iter().all(label)
        && top.chars().count() >= 2
        && top.chars().all(char::is_alphabetic)
}

/// An Internet address of one machine: version 4 in four numbers, or version 6 with at least three colons. Addresses that
/// stand for no machine (`0.0.0.0`, loopback, broadcast) do not count.
pub(super) fn is_ip_address(value: &str) -> bool {
    if let Ok(address) = value.parse::<Ipv4Addr>() {
        return !(address.is_unspecified() || address.is_loopback() || address.is_broadcast());
    }
    value.matches(':').count() >= 3
        && value.parse::<Ipv6Addr>().is_ok_and(|address| !address.is_loopback() && !address.is_unspecified())
}

/// Six pairs of hexadecimal digits with the same sign between them, or three groups of four with points; not all the same
/// pair.
pub(super) fn is_mac_address(value: &str) -> bool {
    let separator = [':', '-', '.'].into_iter().find(|sign| value.contains(*sign));
    let Some(separator) = separator else { return false };
    let groups: Vec<&str> = value.split(separator).collect();
    let (count, width) = if separator == '.' { (3, 4) } else { (6, 2) };
    groups.len() == count
        && groups
            .iter()
            .all(|group| group.len() == width && group.bytes().all(|byte| byte.is_ascii_hexdigit()))
        && groups.iter().any(|group| *group != groups[0])
}
