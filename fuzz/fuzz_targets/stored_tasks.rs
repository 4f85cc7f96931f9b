#![no_main]

hostel_fuzz_targets::program!(hostel_queue::fuzz::STORED_TASKS);
