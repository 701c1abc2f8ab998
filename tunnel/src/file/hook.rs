//! What a hook of wg-quick (`PostUp` and the like) would set on the interface by wg(8). Hooks are never run, so what
//! they set is missing unless somebody writes it elsewhere.

/// One thing that a hook sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookSetting {
    /// The interface's private key, from this file, if the hook names one.
    PrivateKey(Option<String>),
    /// A preshared key, from this file, if the hook names one.
    PresharedKey(Option<String>),
    /// What a whole file sets (`wg setconf` and the like), if the hook names one.
    File(Option<String>),
    /// Another setting or a peer.
    Other,
}

/// What a hook sets, in its order.
pub(super) fn settings(hook: &str) -> Vec<HookSetting> {
    // Words of a shell, nearly: quotes and parentheses only separate here.
    let commands = hook.split([';', '&', '|', '\n']);
    commands.flat_map(|command| command_settings(&words(command))).collect()
}

fn words(command: &str) -> Vec<&str> {
    let separates = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '(' | ')' | '<' | '`' | '$' | '{' | '}');
    command.split(separates).filter(|word| !word.is_empty()).collect()
}

fn command_settings(words: &[&str]) -> Vec<HookSetting> {
    let is_wg = |word: &&str| word.rsplit('/').next() == Some("wg");
    let Some(rest) = words.iter().position(is_wg).map(|at| &words[at + 1..]) else { return Vec::new() };
    let path_in = |rest: &[&str]| {
        let path = rest.iter().find(|word| word.starts_with('/') && !word.starts_with("/dev/"));
        path.map(|path| (*path).to_owned())
    };
    match rest.split_first() {
        Some((&("setconf" | "addconf" | "syncconf"), rest)) => vec![HookSetting::File(path_in(rest))],
        Some((&"set", rest)) => {
            let keys = rest.iter().enumerate().filter_map(|(at, word)| {
                // The path is the next word, or that of a program which prints it: `<(cat /etc/wireguard/wg0.key)`.
                let path = || path_in(&rest[at + 1..rest.len().min(at + 4)]);
                match *word {
                    "private-key" => Some(HookSetting::PrivateKey(path())),
                    "preshared-key" => Some(HookSetting::PresharedKey(path())),
                    _ => None,
                }
            });
            let keys: Vec<HookSetting> = keys.collect();
            if keys.is_empty() { vec![HookSetting::Other] } else { keys }
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::HookSetting::{File, Other, PresharedKey, PrivateKey};
    use super::*;

    #[test]
    fn keys_and_files_that_a_hook_sets_are_found_in_usual_shell() {
        let path = |path: &str| Some(path.to_owned());
        for (hook, expected) in [
            ("wg set %i private-key /etc/wireguard/%i.key", vec![PrivateKey(path("/etc/wireguard/%i.key"))]),
            ("/usr/bin/wg set wg0 private-key /k; iptables -A x", vec![PrivateKey(path("/k"))]),
            ("sudo wg set %i private-key <(cat /etc/wg/key)", vec![PrivateKey(path("/etc/wg/key"))]),
            ("bash -c \"wg set %i private-key <(pass wg/%i)\"", vec![PrivateKey(None)]),
            ("pass vpn | wg set %i private-key /dev/stdin", vec![PrivateKey(None)]),
            ("wg set %i peer AAAA preshared-key '/etc/wg/psk'", vec![PresharedKey(path("/etc/wg/psk"))]),
            (
                "true && wg set %i private-key /a peer X preshared-key /b",
                vec![PrivateKey(path("/a")), PresharedKey(path("/b"))],
            ),
            ("wg setconf %i /etc/wg/real.conf", vec![File(path("/etc/wg/real.conf"))]),
            ("wg syncconf %i <(wg-quick strip %i)", vec![File(None)]),
            ("ip link set %i up; wg addconf %i /p.conf", vec![File(path("/p.conf"))]),
            ("wg set %i fwmark 51820", vec![Other]),
            ("wg set %i peer X endpoint vpn.example.org:1", vec![Other]),
            ("iptables -A FORWARD -i %i -j ACCEPT", vec![]),
            ("wg show %i", vec![]),
            ("echo private-key /etc/wireguard/wg", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(settings(hook), expected, "{hook}");
        }
    }
}
