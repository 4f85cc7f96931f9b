//! Warns of the expiry of a certificate: when it is loaded, 30, 7 and 1 days before it expires, and when
//! it has expired. Clients refuse an expired certificate; the node does not.

use crate::pem;
use parking_lot::Mutex;
use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use tokio_rustls::rustls::pki_types::CertificateDer;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How many days before the expiry the log warns of it.
const WARN_DAYS: [u32; 3] = [1, 7, 30];

/// The expiry of a file's certificates, and the latest warning.
pub struct CertificateExpiry {
    setting: &'static str,
    file: PathBuf,
    /// The first expiry of any of them; `None` if none can be read.
    expires: Option<SystemTime>,
    logged: Mutex<Option<Notice>>,
}

/// What the log says of the expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notice {
    Within { days: u32 },
    Expired,
}

impl CertificateExpiry {
    /// The expiry of the certificates in `file`, which `setting` names.
    pub fn of(setting: &'static str, file: &Path, certificates: &[CertificateDer<'_>]) -> Self {
        Self {
            setting,
            file: file.to_owned(),
            expires: certificates.iter().filter_map(pem::not_after).min(),
            logged: Mutex::default(),
        }
    }

    /// Logs a warning if one has become due since the last call.
    pub fn check(&self, now: SystemTime) {
        let notice = self.expires.and_then(|expires| notice(expires, now));
        let mut logged = self.logged.lock();
        if *logged == notice {
            return;
        }
        *logged = notice;
        let (setting, file) = (self.setting, self.file.display());
        match notice {
            None => {}
            Some(Notice::Within { days }) => tracing::warn!(
                "{setting}: the certificate in {file} expires within {}; replace the file, which a \
                 running node reads again",
                match days {
                    1 => "a day".to_owned(),
                    days => format!("{days} days"),
                }
            ),
            Some(Notice::Expired) => tracing::error!(
                "{setting}: the certificate in {file} has expired, and clients refuse it; replace the \
                 file, which a running node reads again"
            ),
        }
    }
}

fn notice(expires: SystemTime, now: SystemTime) -> Option<Notice> {
    let Ok(left) = expires.duration_since(now) else {
        return Some(Notice::Expired);
    };
    let due = WARN_DAYS.into_iter().find(|days| left <= DAY * *days);
    due.map(|days| Notice::Within { days })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_come_thirty_seven_and_one_days_before_the_expiry_and_at_it() {
        let expires = SystemTime::UNIX_EPOCH + DAY * 1000;
        let before = |left: Duration| notice(expires, expires - left);
        let second = Duration::from_secs(1);
        let within = |days| Some(Notice::Within { days });
        assert_eq!(before(DAY * 30 + second), None);
        assert_eq!(before(DAY * 30), within(30));
        assert_eq!(before(DAY * 7 + second), within(30));
        assert_eq!(before(DAY * 7), within(7));
        assert_eq!(before(DAY), within(1));
        assert_eq!(before(second), within(1));
        assert_eq!(notice(expires, expires + second), Some(Notice::Expired));
    }
}
