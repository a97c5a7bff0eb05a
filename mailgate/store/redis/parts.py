# -*- test-case-name: mailgate.test.store.test_contract mailgate.test.store.test_redis -*-
"""
What several scripts have in common: functions in Lua that read and write the values of
L{mailgate.store.redis.loginscripts}.
"""

from __future__ import annotations

from mailgate.store.interfaces import DEAD

__all__ = ["ROWS", "SESSIONS", "STANDING"]

ROWS = """
local NONE = string.rep('A', 22)
local function newest(rows, first, last)
  local latest = 0
  for i = first, last do
    if rows[i] then
      latest = math.max(latest, tonumber(rows[i]) or 0)
    end
  end
  return latest
end
local function guesses(row, window, cleared, now)
  local found = {}
  if row and #row % 11 == 0 then
    for at = 1, #row, 11 do
      local moment, tag, weight, tagged = struct.unpack('<I7c2BB', row, at)
      if now - moment < window and moment > cleared then
        found[#found + 1] = {moment, tag, weight, tagged}
      end
    end
  end
  return found
end
local function counts(row, cleared)
  if not row or #row < 15 then
    return nil
  end
  local start, before, current = struct.unpack('<I7I4I4', row)
  if start <= cleared then
    return nil
  end
  return start, before, current
end
local function weigh(row, window, cleared, now)
  local start, before, current = counts(row, cleared)
  if not start then
    return 0
  end
  local passed = math.max(0, now - start)
  if passed < window then
    return current + math.floor(before * (1 - passed / window))
  elseif passed < 2 * window then
    return math.floor(current * (2 - passed / window))
  end
  return 0
end
local function plus(row, weight, window, cleared, now)
  local start, before, current = counts(row, cleared)
  local windows = start and math.floor((now - start) / window) or 2
  if windows == 1 then
    start, before, current = start + window, current, 0
  elseif windows > 1 then
    start, before, current = now, 0, 0
  end
  return struct.pack('<I7I4I4', start, before, math.min(4294967295, current + weight))
end
local function users(row, window, now)
  local found = {}
  for at = 16, #row - 10, 11 do
    local user, moment = struct.unpack('<c4I7', row, at)
    if now - moment < window then
      found[#found + 1] = {user, moment}
    end
  end
  return found
end
local function goods(row, good, seconds)
  local found = {}
  if row and #row % 6 == 0 then
    for at = 1, #row, 6 do
      local user, moment = struct.unpack('<c2I4', row, at)
      if seconds - moment < good then
        found[#found + 1] = {user, moment}
      end
    end
  end
  return found
end
local function marked(row, cleared)
  if not row or #row < 17 then
    return nil
  end
  local since, till, count, length = struct.unpack('<I7I7I2B', row)
  if since <= cleared or #row < 17 + length then
    return nil
  end
  return till, count, string.sub(row, 18, 17 + length), string.sub(row, 18 + length)
end
"""

SESSIONS = (
    f"local DEAD = {DEAD * 1000:.0f}"
    + """
local function living(gateways, now)
  local entries = redis.call('HMGET', 'mg:1:gw', unpack(gateways))
  local runs = {}
  for i, gateway in ipairs(gateways) do
    local entry = entries[i]
    if entry and #entry > 6 then
      local moment = struct.unpack('<I6', entry)
      local run, coming = string.match(entry, '^(.-)\\n(.*)$', 7)
      if run and now - moment < DEAD then
        runs[gateway] = {run, coming}
      end
    end
  end
  return runs
end
local function sessions(user, protocol, part, now, own)
  local rows = redis.call('HGETALL', 'mg:1:c:' .. user)
  local found, gateways = {}, {}
  for i = 1, #rows, 2 do
    if rows[i] ~= own then
      gateways[#gateways + 1] = rows[i]
    end
  end
  if #gateways == 0 then
    return found
  end
  local runs = living(gateways, now)
  for i = 1, #rows, 2 do
    local run, packed = string.match(rows[i + 1], '^(.-)\\n(.*)$')
    local is = runs[rows[i]]
    if run and is and (is[1] == run or is[2] == run) then
      local total, same = 0, 0
      for at = 1, #packed - 7, 8 do
        local count = struct.unpack('<I2', packed, at + 6)
        local key = string.sub(packed, at, at + 5)
        if string.sub(key, 1, #protocol) == protocol then
          total = total + count
          if key == part then
            same = same + count
          end
        end
      end
      if total > 0 then
        found[#found + 1] = {rows[i], math.min(65535, total), same}
      end
    end
  end
  return found
end
"""
)

STANDING = """
local function marks(rows, at, bounds, isCounted, now)
  local found = {}
  for i = 1, 3 do
    local till, count, rule, name = marked(rows[at + i], bounds[i])
    if till and (i ~= 2 or isCounted) then
      found[#found + 1] = struct.pack('<BdI2BI2', i - 1, till - now, count, #rule, #name) .. rule .. name
    end
  end
  return found
end
local function standing(numbers, has, welcome, marked, found, now)
  local parts = {struct.pack('<I4I4I4I2dddI2BBB', unpack(numbers))}
  for _, each in ipairs(has) do
    parts[#parts + 1] = struct.pack('<I4c2BB', math.max(0, (now - each[1]) / 1000), each[2], each[3], each[4])
  end
  for _, each in ipairs(welcome) do
    parts[#parts + 1] = struct.pack('<c2I4', each[1], math.max(0, math.floor(now / 1000000) - each[2]))
  end
  for _, each in ipairs(marked) do
    parts[#parts + 1] = each
  end
  for _, each in ipairs(found) do
    parts[#parts + 1] = struct.pack('<BI2I2', #each[1], each[2], each[3]) .. each[1]
  end
  return table.concat(parts)
end
"""
