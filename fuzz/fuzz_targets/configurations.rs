#![no_main]

hostel_fuzz_targets::program!(hostel_config::fuzz::CONFIGURATIONS);
