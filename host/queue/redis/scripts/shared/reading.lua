-- Returns what is stored of a task: its record and that of its end, each as a whole if it has no more than so
-- many bytes, or else without its payload or result; their sizes, the value and the end of its lease while it
-- runs, what its earlier attempts left, of which only the beginning is returned unless all of it is wanted, and
-- the progress of the latest one. A key that holds another type of value is as one without.
local function describe(careful, id, max_record, max_end, all_past)
  local function whole_or_head(key, max, read_head)
    local size = redis.pcall('STRLEN', key)
    if type(size) ~= 'number' then return '', 0 end
    if size <= max then return call('GET', key) or '', size end
    return read_head() or '', size
  end
  local END = TAG .. ':end:' .. id
  local record, size = whole_or_head(TAG .. ':task:' .. id, max_record, function() return careful.read_head(id) end)
  local run = call('HGET', TAG .. ':run', id) or ''
  local of = run ~= '' and careful.parse_run(run)
  local lease_end = of and call('ZSCORE', TAG .. ':leases:' .. of.type, id) or ''
  local ended, end_size = whole_or_head(END, max_end, function()
    -- An error has a bounded size.
    local head = call('GETRANGE', END, 0, 65535)
    return string.match(head, '^[^\n]*\n[^\n]*\n') or head
  end)
  local past, progress = redis.pcall('GET', TAG .. ':past:' .. id), redis.pcall('HGET', TAG .. ':progress', id)
  if type(past) ~= 'string' then past = '' end
  if not all_past then past = string.match(past, '^[^\n]*\n[^\n]*\n[^\n]*\n') or past end
  return { record, size, run, lease_end, ended, end_size, past, type(progress) == 'string' and progress or '' }
end
