//! What errors say of values, and which values replace others.

use super::{error, parse, parse_with};
use hostel_task::{Name, Retention};

#[test]
fn errors_do_not_repeat_what_may_be_a_secret() {
    for value in [
        "hunter2",
        "12345",
        "[\"hunter2\"]",
        "redis://me:hunter2@host",
        "\"hunter2",
    ] {
        for setting in [
            "[discovery]\nkind = \"etcd\"\npassword",
            "[queue]\nkind = \"redis\"\nurl",
            "[plugin.a.config]\nkey",
        ] {
            let Err(errors) = parse(&format!("{setting} = {value}")) else {
                continue;
            };
            let errors = errors.to_string();
            assert!(!errors.contains("hunter2"), "{errors}");
            assert!(!errors.contains("12345"), "{errors}");
        }
    }
    let error = error("[discovery]\nkind = \"etcd\"\npassword = hunter2");
    assert!(error.contains("must be quoted"), "{error}");
}

#[test]
fn a_key_that_a_plugin_calls_kind_is_a_key_like_others() {
    let text = "[plugin.mailer.config]\nkind = \"smtp\"\nhost = \"mx\"";
    let variables = [("HOSTEL__PLUGIN__MAILER__CONFIG__KIND", "api")];
    let config = parse_with(text, &variables).unwrap();
    let settings = &config.plugin["mailer"].config;
    assert_eq!((&*settings["kind"], &*settings["host"]), ("api", "mx"));
}

#[test]
fn a_type_may_be_kept_for_times_of_its_own() {
    let config = parse(
        "[queue]\nkeep_completed_ms = 1000\nkeep_failed_ms = 2000\nkeep_cancelled_ms = 3000\n\
         [plugin.a.task.report]\nkeep_completed_ms = 5000\n\
         [plugin.b.task.report]\nkeep_failed_ms = 9000\n\
         [plugin.b.task.other]\nmax_attempts = 2",
    )
    .unwrap();
    let retention = config.retention();
    let of = |task_type: &str| {
        let task_type = Name::parse("task type", task_type).unwrap();
        Retention::STATES.map(|state| retention.keep(&task_type, state).as_millis())
    };
    assert_eq!(of("report"), [5000, 9000, 3000]);
    assert_eq!(of("other"), [1000, 2000, 3000]);
}
