#![no_main]

hostel_fuzz_targets::program!(hostel_schedule::fuzz::SCHEDULES);
