# -*- test-case-name: mailgate.test.store.test_contract mailgate.test.store.test_redis -*-
"""
The scripts for sessions, places and notes.

  - gw, a hash: for each gateway when it has beaten, its run, and the run that is being written;
  - r:GATEWAY:RUN, a hash: the sealed record of each session, and an empty field, without which it would end with the
    last session;
  - c, a user, a hash: for each gateway its run, and how many sessions there are, by protocol and address;
  - a: the place of a user;
  - note:SHELF, a hash: when each value ends, and the value; ends:SHELF, a sorted set: the same times.
"""

from __future__ import annotations

from mailgate.store.redis.parts import SESSIONS
from mailgate.store.redis.script import script

__all__ = [
    "ALL",
    "BEAT",
    "FIRST",
    "GATEWAYS",
    "LAST",
    "LEAVE",
    "LIVING",
    "MORE",
    "PLACE",
    "PUT",
    "RETAIN",
    "SESSIONS_OF",
    "TAKE",
]

ALL, FIRST, LAST, MORE = b"all", b"first", b"last", b"more"
"""What a L{BEAT} is: all sessions, the first or the last part of all, or what has changed or a part between."""

BEAT = script(
    "beat",
    """
local gateway, run, what, began, ended, counted = unpack(ARGV, 1, 6)
began, ended, counted = tonumber(began), tonumber(ended), tonumber(counted)
local now = millis()
local entry = redis.call('HGET', 'mg:1:gw', gateway)
local is, coming = '', ''
if entry and #entry > 6 then
  is, coming = string.match(entry, '^(.-)\\n(.*)$', 7)
  is, coming = is or '', coming or ''
end
local records = 'mg:1:r:' .. gateway .. ':' .. run
if what == 'all' or what == 'first' then
  for _, old in ipairs({is, coming}) do
    if old ~= '' and (what == 'all' or old ~= is) then
      redis.call('UNLINK', 'mg:1:r:' .. gateway .. ':' .. old)
    end
  end
  redis.call('HSET', records, '', '')
  is, coming = what == 'all' and run or is, what == 'all' and '' or run
  local entries = redis.call('HGETALL', 'mg:1:gw')
  for i = 1, #entries, 2 do
    if #entries[i + 1] < 6 or now - struct.unpack('<I6', entries[i + 1]) > 3600000 then
      redis.call('HDEL', 'mg:1:gw', entries[i])
    end
  end
elseif what == 'last' then
  if coming ~= run then
    return 0
  end
  if is ~= '' and is ~= run then
    redis.call('UNLINK', 'mg:1:r:' .. gateway .. ':' .. is)
  end
  is, coming = run, ''
elseif is ~= run and coming ~= run then
  return 0
end
if redis.call('PEXPIRE', records, 3600000) == 0 then
  return 0
end
local at = 7
if began > 0 then
  redis.call('HSET', records, unpack(ARGV, at, at + 2 * began - 1))
  at = at + 2 * began
end
if ended > 0 then
  redis.call('HDEL', records, unpack(ARGV, at, at + ended - 1))
  at = at + ended
end
for i = at, at + 2 * counted - 1, 2 do
  local key = 'mg:1:c:' .. ARGV[i]
  if ARGV[i + 1] == '' then
    redis.call('HDEL', key, gateway)
  else
    redis.call('HSET', key, gateway, run .. '\\n' .. ARGV[i + 1])
    redis.call('PEXPIRE', key, 3600000)
  end
end
redis.call('HSET', 'mg:1:gw', gateway, struct.pack('<I6', now) .. is .. '\\n' .. coming)
redis.call('PEXPIRE', 'mg:1:gw', 7200000)
return 1
""",
)
"""
A gateway says that it lives. Arguments: its name and run; what this is; how many sessions have begun, have ended, and
how many users are counted; then these. It returns 0, and keeps nothing, if the store does not know the run.
"""

LEAVE = script(
    "leave",
    """
local gateway, run = ARGV[1], ARGV[2]
local entry = redis.call('HGET', 'mg:1:gw', gateway)
local is, coming = '', ''
if entry and #entry > 6 then
  is, coming = string.match(entry, '^(.-)\\n(.*)$', 7)
end
if is == run or coming == run then
  redis.call('HDEL', 'mg:1:gw', gateway)
end
redis.call('UNLINK', 'mg:1:r:' .. gateway .. ':' .. run)
return 1
""",
)
"""A gateway stops. Arguments: its name and run."""

GATEWAYS = script(
    "gateways",
    """
local now = millis()
local entries = redis.call('HGETALL', 'mg:1:gw')
local found = {}
for i = 1, #entries, 2 do
  local entry = entries[i + 1]
  if #entry > 6 then
    local age = now - struct.unpack('<I6', entry)
    local run = string.match(entry, '^(.-)\\n', 7)
    if run and run ~= '' and age < 3600000 then
      found[#found + 1] = entries[i]
      found[#found + 1] = run
      found[#found + 1] = math.max(0, age)
    end
  end
end
return found
""",
)
"""All gateways: name, run, and the age of the last beat in milliseconds of each."""

LIVING = script("living", SESSIONS, "local runs = living({ARGV[1]}, millis())\nreturn (runs[ARGV[1]] or {''})[1]\n")
"""The run of a gateway, empty if it is dead. Argument: its name."""

SESSIONS_OF = script(
    "sessionsOf",
    SESSIONS,
    """
local flat = {}
for _, each in ipairs(sessions(ARGV[1], '', '', millis())) do
  flat[#flat + 1] = each[1]
  flat[#flat + 1] = each[2]
end
return flat
""",
)
"""The sessions of a user: the name of each gateway, and how many. Argument: what stands for the user in the key."""

PLACE = script(
    "place",
    """
local key = 'mg:1:a:' .. ARGV[1]
local has = redis.call('GET', key)
if not has or (ARGV[4] == '1' and (ARGV[5] == '' or ARGV[5] == has)) then
  redis.call('SET', key, ARGV[2], 'PX', ARGV[3])
  return ARGV[2]
end
redis.call('PEXPIRE', key, ARGV[3])
return has
""",
)
"""
Gives a user a place. Arguments: what stands for the user in the key; the place; for how many milliseconds; whether the
next one is given; the place that it must not be.
"""

RETAIN = script(
    "retain",
    """
for i = 2, #ARGV do
  if tonumber(ARGV[1]) > 0 then
    redis.call('PEXPIRE', 'mg:1:a:' .. ARGV[i], ARGV[1])
  else
    redis.call('DEL', 'mg:1:a:' .. ARGV[i])
  end
end
return 1
""",
)
"""How long places last. Arguments: for how many milliseconds; what stands for each user in the key."""

PUT = script(
    "put",
    """
local notes, ends = 'mg:1:note:' .. ARGV[1], 'mg:1:ends:' .. ARGV[1]
local now = millis()
local till = now + tonumber(ARGV[4])
redis.call('HSET', notes, ARGV[2], struct.pack('<I6', till) .. ARGV[3])
redis.call('ZADD', ends, till, ARGV[2])
local over = redis.call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, 100)
if #over == 0 and redis.call('ZCARD', ends) > tonumber(ARGV[5]) then
  over = redis.call('ZRANGE', ends, 0, 0)
end
if #over > 0 then
  redis.call('HDEL', notes, unpack(over))
  redis.call('ZREM', ends, unpack(over))
end
local longest = math.max(redis.call('PTTL', notes), tonumber(ARGV[4]))
redis.call('PEXPIRE', notes, longest)
redis.call('PEXPIRE', ends, longest)
return 1
""",
)
"""Keeps a note. Arguments: the shelf, the id, the value, for how many milliseconds, and how many notes it may have."""

TAKE = script(
    "take",
    """
local shelf = ARGV[1]
redis.call('HDEL', 'mg:1:note:' .. shelf, unpack(ARGV, 2))
redis.call('ZREM', 'mg:1:ends:' .. shelf, unpack(ARGV, 2))
return 1
""",
)
"""Drops notes. Arguments: the shelf, and their ids."""
