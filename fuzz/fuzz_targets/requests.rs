#![no_main]

hostel_fuzz_targets::program!(hostel::api::fuzz::REQUESTS);
