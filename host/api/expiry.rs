//! The end of a certificate's life, told in time: when it is loaded, 30, 7 and 1 days before its end,
//! and at the end. Refuses nothing; the clients do.

use crate::pem;
use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};
use tokio_rustls::rustls::pki_types::CertificateDer;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How many days before the end the log says so.
const WARN_DAYS: [u32; 3] = [1, 7, 30];

/// When a file's certificates end, and what of it the log has.
pub struct Expiry {
    setting: &'static str,
    file: PathBuf,
    /// The first end of any of them; `None` where none can be read.
    ends: Option<SystemTime>,
    logged: Mutex<Option<Notice>>,
}

/// What the log says: the later, the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notice {
    Within { days: u32 },
    Expired,
}

impl Expiry {
    /// Of the certificates in `file`, which `setting` names.
    pub fn of(setting: &'static str, file: &Path, certificates: &[CertificateDer<'_>]) -> Self {
        Self {
            setting,
            file: file.to_owned(),
            ends: certificates.iter().filter_map(pem::not_after).min(),
            logged: Mutex::default(),
        }
    }

    /// Logs what has become due since the last look.
    pub fn look(&self, now: SystemTime) {
        let notice = self.ends.and_then(|ends| notice(ends, now));
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if *logged == notice {
            return;
        }
        *logged = notice;
        let (setting, file) = (self.setting, self.file.display());
        match notice {
            None => {}
            Some(Notice::Within { days }) => tracing::warn!(
                "{setting}: the certificate in {file} expires within {}; replace the file, which is read \
                 again while the node runs",
                match days {
                    1 => "a day".to_owned(),
                    days => format!("{days} days"),
                }
            ),
            Some(Notice::Expired) => tracing::error!(
                "{setting}: the certificate in {file} has expired, and clients refuse it; replace the \
                 file, which is read again while the node runs"
            ),
        }
    }
}

fn notice(ends: SystemTime, now: SystemTime) -> Option<Notice> {
    let Ok(left) = ends.duration_since(now) else {
        return Some(Notice::Expired);
    };
    let due = WARN_DAYS.into_iter().find(|days| left <= DAY * *days);
    due.map(|days| Notice::Within { days })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_comes_thirty_seven_and_one_days_before_the_end_and_at_it() {
        let ends = SystemTime::UNIX_EPOCH + DAY * 1000;
        let before = |left: Duration| notice(ends, ends - left);
        let second = Duration::from_secs(1);
        let within = |days| Some(Notice::Within { days });
        assert_eq!(before(DAY * 30 + second), None);
        assert_eq!(before(DAY * 30), within(30));
        assert_eq!(before(DAY * 7 + second), within(30));
        assert_eq!(before(DAY * 7), within(7));
        assert_eq!(before(DAY), within(1));
        assert_eq!(before(second), within(1));
        assert_eq!(notice(ends, ends + second), Some(Notice::Expired));
    }
}
