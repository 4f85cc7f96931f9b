#![no_main]

hostel_fuzz_targets::program!(hostel_queue::fuzz::REDIS_PAGE_TOKENS);
