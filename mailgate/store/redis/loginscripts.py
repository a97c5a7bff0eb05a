# -*- test-case-name: mailgate.test.store.test_contract mailgate.test.store.test_redis -*-
"""
The scripts for logins. They say in Lua what L{mailgate.store.memorylogins} says in Python.

Values are packed, as small as can be; times are microseconds since 1970 of the store, where nothing else is said:

  - p, a pair: for each failure its time, its tag, its weight, and whether it has a tag;
  - f, an address, and n, a network: when the window began, what the failures of the one before weigh, and those of this
    one; behind that of an address, its failed users, each with four bytes of the digest and the time;
  - u, a user: the same counts, and two bytes of each tag;
  - k, a user in a network: the last success, in seconds;
  - g, an address: the users who have succeeded, each with two bytes of the digest and the time in seconds;
  - b, a block: when it began and ends, how often, the rule, and the sealed words;
  - t, an address: when its next login would be in time;
  - l, a lease: until when;
  - z: when something was cleared. What is older counts no more.
"""

from __future__ import annotations

from mailgate.store.redis.parts import ROWS, SESSIONS, STANDING
from mailgate.store.redis.script import script

__all__ = ["CHECK", "CLEAR", "FAILED", "KNOWN", "LEASE", "MARK", "SUCCEEDED"]

CHECK = script(
    "check",
    ROWS,
    SESSIONS,
    STANDING,
    """
local user, address, network = digest(ARGV[1], 1), digest(ARGV[1], 2), digest(ARGV[1], 3)
local pair, known = digest(ARGV[1], 4), digest(ARGV[1], 5)
local interval, burst, most, window, userWindow, good = struct.unpack('<dI4I2ddd', ARGV[2])
local now = micros()
local isCounted = address ~= NONE
local rows = redis.call('MGET', 'mg:1:p:' .. pair, 'mg:1:u:' .. user, 'mg:1:k:' .. known, 'mg:1:l:' .. user,
  'mg:1:b:' .. pair, 'mg:1:b:' .. address, 'mg:1:b:' .. user,
  'mg:1:z:' .. network, 'mg:1:z:' .. address, 'mg:1:z:' .. user, 'mg:1:z:' .. pair,
  'mg:1:f:' .. address, 'mg:1:n:' .. network, 'mg:1:g:' .. address, 'mg:1:t:' .. address)
local ofAddress = newest(rows, 8, 9)
local cleared = newest(rows, 8, 11)
local atAddress, atNetwork, failed, welcome = 0, 0, 0, {}
if isCounted then
  if counts(rows[12], ofAddress) then
    atAddress = weigh(rows[12], window, ofAddress, now)
    failed = #users(rows[12], window, now)
  end
  atNetwork = weigh(rows[13], window, 0, now)
  welcome = goods(rows[14], good, math.floor(now / 1000000))
end
local wait = 0
if isCounted and interval > 0 and not rows[3] then
  local allowance = math.min(math.max(1, most), 1 + #welcome)
  local early = math.max(0, (tonumber(rows[15] or 0) or 0) - now)
  if early > burst * interval + 1 then
    wait = -1
  else
    local due = math.floor(early + interval / allowance)
    redis.call('SET', 'mg:1:t:' .. address, string.format('%.0f', now + due), 'PX', ttl(due))
    wait = early
  end
end
local turn = math.max(0, (tonumber(rows[4] or 0) or 0) - now)
local has = guesses(rows[1], window, cleared, now)
local blocks = marks(rows, 4, {cleared, ofAddress, newest(rows, 10, 10)}, isCounted, now)
local found = sessions(user, string.sub(ARGV[3], 1, 2), ARGV[3], math.floor(now / 1000), ARGV[4])
local ofUser = weigh(rows[2], userWindow, 0, now)
local last = tonumber(rows[3] or -1) or -1
if last < 0 and wait == 0 and turn == 0 and atAddress + atNetwork + ofUser + failed == 0
  and #has + #welcome + #blocks + #found == 0 then
  return ''
end
return standing({atAddress, atNetwork, ofUser, failed, last < 0 and -1 or math.max(0, now / 1000000 - last), wait, turn,
  #has, #welcome, #blocks, #found}, has, welcome, blocks, found, now)
""",
)
"""
What all gateways know of a login. Arguments: user, address, network, pair, and user in network; numbers; protocol and
address in counts; the name of this gateway. It returns nothing if nothing is known, else all packed.
"""

KNOWN = script(
    "known",
    ROWS,
    SESSIONS,
    STANDING,
    """
local window, userWindow = struct.unpack('<dd', ARGV[2])
local now = micros()
local names, number = {}, #ARGV[1] / 96
for i = 0, number - 1 do
  local user, address = digest(ARGV[1], 4 * i + 1), digest(ARGV[1], 4 * i + 2)
  local network, pair, at = digest(ARGV[1], 4 * i + 3), digest(ARGV[1], 4 * i + 4), 11 * i
  names[at + 1], names[at + 2] = 'mg:1:p:' .. pair, 'mg:1:u:' .. user
  names[at + 3], names[at + 4], names[at + 5] = 'mg:1:b:' .. pair, 'mg:1:b:' .. address, 'mg:1:b:' .. user
  names[at + 6], names[at + 7] = 'mg:1:z:' .. network, 'mg:1:z:' .. address
  names[at + 8], names[at + 9] = 'mg:1:z:' .. user, 'mg:1:z:' .. pair
  names[at + 10], names[at + 11] = 'mg:1:f:' .. address, 'mg:1:n:' .. network
end
local rows, parts = redis.call('MGET', unpack(names)), {}
for i = 0, number - 1 do
  local at, isCounted = 11 * i, digest(ARGV[1], 4 * i + 2) ~= NONE
  local ofAddress, cleared = newest(rows, at + 6, at + 7), newest(rows, at + 6, at + 9)
  local atAddress, atNetwork, failed = 0, 0, 0
  if isCounted and rows[at + 10] and counts(rows[at + 10], ofAddress) then
    atAddress = weigh(rows[at + 10], window, ofAddress, now)
    failed = #users(rows[at + 10], window, now)
  end
  if isCounted and rows[at + 11] then
    atNetwork = weigh(rows[at + 11], window, 0, now)
  end
  local ofUser = rows[at + 2] and weigh(rows[at + 2], userWindow, 0, now) or 0
  local has = guesses(rows[at + 1], window, cleared, now)
  local blocks = marks(rows, at + 2, {cleared, ofAddress, newest(rows, at + 8, at + 8)}, isCounted, now)
  local part = string.sub(ARGV[3], 6 * i + 1, 6 * i + 6)
  local found = sessions(digest(ARGV[1], 4 * i + 1), string.sub(part, 1, 2), part, math.floor(now / 1000), ARGV[4])
  if atAddress + atNetwork + ofUser + failed + #has + #blocks + #found > 0 then
    local told = standing({atAddress, atNetwork, ofUser, failed, -1, 0, 0, #has, 0, #blocks, #found}, has, {}, blocks,
      found, now)
    parts[#parts + 1] = struct.pack('<I2I4', i, #told) .. told
  end
end
return table.concat(parts)
""",
)
"""
What concerns logins of known pairs. Arguments: user, address, network and pair of each; the windows; protocol and
address in counts of each; the name of this gateway. It returns, for each of which something is known, its number and
what L{CHECK} returns.
"""

FAILED = script(
    "failed",
    ROWS,
    """
local user, address, network, pair = digest(ARGV[1], 1), digest(ARGV[1], 2), digest(ARGV[1], 3), digest(ARGV[1], 4)
local tag, tagged, weight, addressWeight, forUser, window, userWindow, mostGuesses, mostUsers, short =
  struct.unpack('<c2BBI2BddI2I2c4', ARGV[2])
local now = micros()
local rows = redis.call('MGET', 'mg:1:p:' .. pair, 'mg:1:f:' .. address, 'mg:1:n:' .. network, 'mg:1:u:' .. user,
  'mg:1:z:' .. network, 'mg:1:z:' .. address, 'mg:1:z:' .. user, 'mg:1:z:' .. pair)
local ofAddress, cleared = newest(rows, 5, 6), newest(rows, 5, 8)
-- The store's clock may have been set back.
now = math.max(now, cleared + 1)
local kept, is, before = {}, false, weight
for _, each in ipairs(guesses(rows[1], window, cleared, now)) do
  if tagged == 1 and each[4] == 1 and each[2] == tag then
    is, before = true, each[3]
  else
    kept[#kept + 1] = struct.pack('<I7c2BB', each[1], each[2], each[3], each[4])
  end
end
kept[#kept + 1] = struct.pack('<I7c2BB', now, tag, before, tagged)
redis.call('SET', 'mg:1:p:' .. pair, table.concat(kept, '', math.max(1, #kept - mostGuesses + 1)), 'PX', ttl(window))
-- Without weight, it is a repeat that the gateway has recognised itself.
if is or weight == 0 then
  return 0
end
if address ~= NONE then
  local row = plus(rows[2], addressWeight, window, ofAddress, now)
  local failed = {}
  if counts(rows[2], ofAddress) then
    for _, each in ipairs(users(rows[2], window, now)) do
      if each[1] ~= short then
        failed[#failed + 1] = struct.pack('<c4I7', each[1], each[2])
      end
    end
  end
  failed[#failed + 1] = struct.pack('<c4I7', short, now)
  row = row .. table.concat(failed, '', math.max(1, #failed - mostUsers + 1))
  redis.call('SET', 'mg:1:f:' .. address, row, 'PX', ttl(2 * window))
  if network ~= NONE then
    redis.call('SET', 'mg:1:n:' .. network, plus(rows[3], addressWeight, window, 0, now), 'PX', ttl(2 * window))
  end
end
if forUser == 1 then
  local row, tags = rows[4], ''
  if weigh(row, userWindow, 0, now) == 0 then
    row = false
  else
    tags = string.sub(row, 16)
  end
  if tagged == 1 then
    for at = 1, #tags - 1, 2 do
      if string.sub(tags, at, at + 1) == tag then
        return 1
      end
    end
    tags = string.sub(tags .. tag, -128)
  end
  row = plus(row, weight, userWindow, 0, now) .. tags
  redis.call('SET', 'mg:1:u:' .. user, row, 'PX', ttl(2 * userWindow))
end
return 1
""",
)
"""Counts a failure. Arguments: user, address, network and pair; numbers. It returns 1 if it was new."""

SUCCEEDED = script(
    "succeeded",
    ROWS,
    """
local known, address, pair = digest(ARGV[1], 1), digest(ARGV[1], 2), digest(ARGV[1], 3)
local knownFor, goodFor, most, short = struct.unpack('<ddBc2', ARGV[2])
local now = micros()
local seconds = math.floor(now / 1000000)
local rows = redis.call('MGET', 'mg:1:p:' .. pair, 'mg:1:g:' .. address)
redis.call('SET', 'mg:1:k:' .. known, string.format('%.0f', seconds), 'PX', ttl(knownFor))
if address ~= NONE then
  local kept, isFresh = {}, false
  for _, each in ipairs(goods(rows[2], goodFor / 1000000, seconds)) do
    if each[1] ~= short then
      kept[#kept + 1] = struct.pack('<c2I4', each[1], each[2])
    elseif seconds - each[2] < 3600 then
      isFresh = true
    end
  end
  if not isFresh then
    kept[#kept + 1] = struct.pack('<c2I4', short, seconds)
    redis.call('SET', 'mg:1:g:' .. address, table.concat(kept, '', math.max(1, #kept - most + 1)), 'PX', ttl(goodFor))
  end
end
if rows[1] then
  local kept, isOther = {}, false
  for _, each in ipairs(guesses(rows[1], math.huge, 0, now)) do
    isOther = isOther or each[3] > 0
    if each[4] == 1 then
      kept[#kept + 1] = struct.pack('<I7c2BB', each[1], each[2], 0, 1)
    end
  end
  if #kept == 0 then
    redis.call('DEL', 'mg:1:p:' .. pair)
  elseif isOther then
    redis.call('SET', 'mg:1:p:' .. pair, table.concat(kept), 'KEEPTTL')
  end
end
return 1
""",
)
"""Remembers a success. Arguments: user in network, address and pair; numbers."""

MARK = script(
    "mark",
    ROWS,
    """
local thing = digest(ARGV[1], 1)
local seconds, keep, count = struct.unpack('<ddI2', ARGV[2])
local rule, name = ARGV[3], ARGV[4]
local names = {'mg:1:b:' .. thing, 'mg:1:z:' .. thing}
for i = 2, #ARGV[1] / 24 do
  names[#names + 1] = 'mg:1:z:' .. digest(ARGV[1], i)
end
local rows = redis.call('MGET', unpack(names))
local cleared = newest(rows, 2, #names)
local now = math.max(micros(), cleared + 1)
local till = now + seconds
local before, often = marked(rows[1], cleared)
if before then
  till, count = math.max(till, before), math.max(count, often)
end
local row = struct.pack('<I7I7I2B', now, math.ceil(till), count, #rule) .. rule .. name
redis.call('SET', names[1], row, 'PX', ttl(till + keep - now))
return 1
""",
)
"""A rule has blocked something. Arguments: the thing and what it belongs to; numbers; the rule; the sealed words."""

CLEAR = script(
    "clear",
    """
local now = micros()
for i = 1, #ARGV[1] / 24 do
  local thing = digest(ARGV[1], i)
  redis.call('DEL', 'mg:1:p:' .. thing, 'mg:1:f:' .. thing, 'mg:1:n:' .. thing, 'mg:1:u:' .. thing, 'mg:1:b:' .. thing,
    'mg:1:l:' .. thing)
  redis.call('SET', 'mg:1:z:' .. thing, string.format('%.0f', now), 'PX', ARGV[2])
end
return 1
""",
)
"""Forgets failures and blocks. Arguments: the things; for how many milliseconds that is remembered."""

LEASE = script(
    "lease",
    """
local till = micros() + tonumber(ARGV[2]) * 1000
return redis.call('SET', 'mg:1:l:' .. ARGV[1], string.format('%.0f', till), 'NX', 'PX', ARGV[2]) and 1 or 0
""",
)
"""Takes what only one may have. Arguments: what stands for it in the key; for how many milliseconds."""
