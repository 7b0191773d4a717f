"""
The scripts that run in the store, and the keys that they use.

Every key begins with ``sp:{SITE}:SCHEMA:``. The braces keep the keys of one site in one slot of a cluster.

* ``nodes``: a sorted set of columns, each with the time at which its lease ends. A column belongs to one
  connection of one process, and its name is ``NODE/EPOCH``. A column without a lease counts no more.
* ``n:ROW``: a hash. The field of each column has the number that the column's process has of something, such
  as the sessions of a user.
* ``d:ROW``: a hash, of different things, such as the addresses of a user's clients. The field
  ``COLUMN THING`` has the number that the column's process has of the thing. Things count, not numbers.
* ``u:PERIOD:HOLDER``: a hash. The field of each node has the bytes that the holder has used there in a day or
  a month.
* ``b:HOLDER DIRECTION``: a hash: the bytes that are left of a rate, and when each node has borrowed last.
* ``f:NETWORK``: a hash. Each user has a field with the failures to log in as that user from there.
* ``l:NETWORK``: a hash: the number of the penalty, and when it ends.
* ``commands``: a stream of commands for all nodes, and of lock-outs that have begun.
* ``r:ROW``: the theoretical arrival time of a rate (GCRA), in microseconds.

A script uses the server's time and no other. It changes rows only when it has decided everything, so that a
script that the server breaks off has done nothing or something that the next counts repair.
"""

from __future__ import annotations

from hashlib import sha1
from typing import NamedTuple

#: The number of the layout of keys and values. A layout that older nodes cannot use takes the next number.
SCHEMA = 1


class Script(NamedTuple):
    """
    A script.

    :ivar text: what the server runs.
    :ivar digest: the name by which the server keeps it.
    """

    text: str
    digest: str


def script(text: str) -> Script:
    """The script of that *text*."""
    return Script(text, sha1(text.encode()).hexdigest())


def prefix(site: str) -> str:
    """What the keys of *site* begin with."""
    return f"sp:{{{site}}}:{SCHEMA}:"


#: The stream of commands, about how many it has, how long they stay there, and how long they are obeyed
#: (ms).
COMMANDS = "commands"
_MOST, _STAY, _OBEYED = 1000, 120_000, 60_000
#: When each node has told something of itself last, and what.
TOLD, ABOUT = "told", "about"

#: Milliseconds and microseconds by the server's clock.
_TIME = """
local time = redis.call('TIME')
local micros = time[1] * 1000000 + time[2]
local now = math.floor(micros / 1000)
"""

#: Keys: nodes. Arguments: column, lease (ms), columns that are given up with spaces between, whether to join
#: ('1').
#: Answer: the columns that have a lease; none: this column has lost its own, and has to join again.
LEASE = script(
    _TIME
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
for column in string.gmatch(ARGV[3], '%S+') do redis.call('ZREM', KEYS[1], column) end
if ARGV[4] ~= '1' and not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return {} end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2] * 2)
return redis.call('ZRANGE', KEYS[1], 0, -1)
"""
)

#: Keys: nodes, told, about. Arguments: column, and its node or ''. The column counts no more. If it was the
#: last one of the node, what the node has told goes.
LEAVE = script(
    _TIME
    + """
redis.call('ZREM', KEYS[1], ARGV[1])
if (ARGV[2] or '') == '' then return end
for _, column in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')) do
  if string.match(column, '^(.*)/') == ARGV[2] then return end
end
redis.pcall('ZREM', KEYS[2], ARGV[2])
redis.pcall('HDEL', KEYS[3], ARGV[2])
"""
)

#: Keys: rows. Arguments: column, how long rows stay (ms), the column's number in each row. In a row of
#: different things the number has a space and the thing behind it.
COUNT = script("""
for number, key in ipairs(KEYS) do
  local count, thing = string.match(ARGV[number + 2], '^(%S+)(.*)$')
  if count == '0' then
    redis.call('HDEL', key, ARGV[1] .. thing)
  else
    redis.call('HSET', key, ARGV[1] .. thing, count)
    redis.call('PEXPIRE', key, ARGV[2])
  end
end
""")

#: What columns have in rows together. A column without a lease counts no more, and is among the dead ones.
_SUMS = """
local column, stay = ARGV[1], ARGV[2]
local lease = redis.call('ZSCORE', KEYS[1], column)
if not lease or tonumber(lease) <= now then return 'lost' end
local living
local function lives(name)
  if name == column then return true end
  if not living then
    living = {}
    for _, each in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')) do living[each] = true end
  end
  return living[name]
end
local dead = {}
local function sum_of(key)
  local fields, total = redis.call('HGETALL', key), 0
  for number = 1, #fields, 2 do
    if lives(fields[number]) then
      total = total + fields[number + 1]
    else
      dead[#dead + 1] = {key, fields[number]}
    end
  end
  return total
end
local function things_in(key)
  local fields, found, total = redis.call('HGETALL', key), {}, 0
  for number = 1, #fields, 2 do
    local name, thing = string.match(fields[number], '^(%S+) (.*)$')
    if not lives(name) then
      dead[#dead + 1] = {key, fields[number]}
    elseif not found[thing] then
      found[thing], total = true, total + 1
    end
  end
  return found, total
end
local function forget_dead()
  for _, each in ipairs(dead) do redis.call('HDEL', each[1], each[2]) end
end
local function count_more(key, number, thing)
  redis.call('HINCRBY', key, thing and column .. ' ' .. thing or column, number)
  redis.call('PEXPIRE', key, stay)
end
local function arrival_of(key)
  return math.max(tonumber(redis.call('GET', key) or 0), micros)
end
local function arrive(key, arrival)
  local left = math.ceil((arrival - micros) / 1000) + 1
  redis.call('SET', key, string.format('%.0f', arrival), 'PX', left)
end
"""

#: Keys: nodes, then rows and rates. Arguments: column, how long rows stay (ms), the sessions as JSON.
#: A session is a list of what it needs: [number of the key, most] of a row, [number of the key, most, thing]
#: of a row of different things, or [number of the key, microseconds for one, most at once] of a rate. Each
#: session gets all that it needs, or nothing.
#: Answer: a number for each session: 0: it has all; otherwise which need was not met. Or 'lost': the column
#: has no lease, and nothing was done.
ADMIT = script(
    _TIME
    + _SUMS
    + """
local sums, added, arrivals, changed, things = {}, {}, {}, {}, {}
local function sum(place)
  if not sums[place] then sums[place], added[place] = sum_of(KEYS[place]), 0 end
  return sums[place]
end
local function row_of(place)
  if not things[place] then
    local found, total = things_in(KEYS[place])
    things[place] = {found = found, total = total, added = {}}
  end
  return things[place]
end
local function arrival(place)
  if not arrivals[place] then arrivals[place] = arrival_of(KEYS[place]) end
  return arrivals[place]
end
local answers = {}
for number, needs in ipairs(cjson.decode(ARGV[3])) do
  local refused = 0
  for at, need in ipairs(needs) do
    local place, most, burst = need[1], need[2], need[3]
    if type(burst) == 'string' then
      local row = row_of(place)
      if not row.found[burst] and row.total + 1 > most then refused = at end
    elseif burst then
      if arrival(place) + most - micros > (burst + 0.000001) * most then refused = at end
    elseif sum(place) + 1 > most then
      refused = at
    end
    if refused > 0 then break end
  end
  if refused == 0 then
    for _, need in ipairs(needs) do
      local place, thing = need[1], need[3]
      if type(thing) == 'string' then
        local row = row_of(place)
        if not row.found[thing] then row.found[thing], row.total = true, row.total + 1 end
        row.added[thing] = (row.added[thing] or 0) + 1
      elseif thing then
        arrivals[place], changed[place] = arrival(place) + need[2], true
      else
        sums[place], added[place] = sums[place] + 1, added[place] + 1
      end
    end
  end
  answers[number] = refused
end
forget_dead()
for place, count in pairs(added) do
  if count > 0 then count_more(KEYS[place], count) end
end
for place, row in pairs(things) do
  for thing, count in pairs(row.added) do count_more(KEYS[place], count, thing) end
end
for place in pairs(changed) do arrive(KEYS[place], arrivals[place]) end
return table.concat(answers, ' ')
"""
)

#: Keys: nodes, then rows and rates. Arguments: column, how long rows stay (ms), for each row and rate as JSON
#: what the column wants to have in hand: [most, what it has in hand] of a row, or [microseconds for one, what
#: it has in hand, most at once] of a rate. Less than 0 in hand: so many beginnings are given back.
#: Answer: for each row and rate how many the column may have in hand, and how many it has got for that. Or
#: 'lost', as above.
LEND = script(
    _TIME
    + _SUMS
    + """
local answers, counts, arrivals = {}, {}, {}
local function part(free) return math.min(math.floor(free / 50), 256) end
for number, want in ipairs(cjson.decode(ARGV[3])) do
  local key, most, have, burst = KEYS[number + 1], want[1], want[2], want[3]
  local may, added = 0, 0
  if burst then
    local arrival = arrivals[key] or arrival_of(key)
    local left = burst - (arrival - micros) / most
    if have >= 0 and left * 2 > burst then may = part(left) end
    if have < 0 then added = have else added = math.max(may - have, 0) end
    if added ~= 0 then arrivals[key] = math.max(arrival + added * most, micros) end
  else
    local used = sum_of(key) + (counts[key] or 0) - have
    if used * 2 < most then
      may = part(most - used)
      added = math.max(may - have, 0)
    end
    if added > 0 then counts[key] = (counts[key] or 0) + added end
  end
  answers[number] = may .. ' ' .. math.max(added, 0)
end
forget_dead()
for key, number in pairs(counts) do count_more(key, number) end
for key, arrival in pairs(arrivals) do arrive(key, arrival) end
return table.concat(answers, ' ')
"""
)

#: Keys: totals. Arguments: node; then for each key the bytes of this node, and how long the key stays (ms).
#: Answer: for each key, the bytes of all other nodes. A total that a process of this node has told never
#: gets smaller, whichever of them is told last.
USAGE = script("""
local node, answers = ARGV[1], {}
for number, key in ipairs(KEYS) do
  local own, stay = ARGV[2 * number], ARGV[2 * number + 1]
  local fields, others, known = redis.call('HGETALL', key), 0, 0
  for at = 1, #fields, 2 do
    if fields[at] == node then known = tonumber(fields[at + 1]) else others = others + fields[at + 1] end
  end
  if tonumber(own) > known then redis.call('HSET', key, node, own) end
  if tonumber(own) > 0 then redis.call('PEXPIRE', key, stay) end
  answers[number] = string.format('%.0f', others)
end
return answers
""")

#: Keys: commands. Arguments: what is to be done, about what, the node that says so, and who wants it there.
SEND = script(f"""
local number = redis.call('XADD', KEYS[1], 'MAXLEN', '~', '{_MOST}', '*',
  'deed', ARGV[1], 'about', ARGV[2], 'node', ARGV[3], 'by', ARGV[4])
redis.call('PEXPIRE', KEYS[1], {_STAY})
return number
""")

#: Keys: commands. Arguments: the position behind which to begin; '': now.
#: Answer: the position from which to go on, the time (ms), and the commands, as XRANGE has them.
LOOK = script(
    _TIME
    + f"""
local position, oldest = ARGV[1], now - {_OBEYED}
if position == '' then oldest = now - 1 end
if position == '' or tonumber(string.match(position, '%d+')) < oldest then
  position = string.format('%.0f-0', oldest)
end
local answer = {{position, string.format('%.0f', now)}}
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '(' .. position, '+', 'COUNT', 100)) do
  answer[#answer + 1] = entry
  answer[1] = entry[1]
end
return answer
"""
)

#: Keys: failures, penalty, commands. Arguments: a user, how many failures there may be, then in milliseconds:
#: for how long failures count, the first penalty, the longest one, and how long a penalty is remembered; then
#: the network.
#: Answer: milliseconds for which the address is refused from now on (0: it is not), and the penalty's number.
FAILED = script(
    _TIME
    + """
local level, till = unpack(redis.call('HMGET', KEYS[2], 'level', 'till'))
level, till = tonumber(level or 0), tonumber(till or 0)
if till > now then return {till - now, level} end
redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
local failures = 0
for _, count in ipairs(redis.call('HVALS', KEYS[1])) do failures = failures + count end
if failures < tonumber(ARGV[2]) then return {0, 0} end
local lasts = math.min(ARGV[4] * 2 ^ level, tonumber(ARGV[5]))
redis.call('HSET', KEYS[2], 'level', level + 1, 'till', string.format('%.0f', now + lasts))
redis.call('PEXPIRE', KEYS[2], string.format('%.0f', lasts + ARGV[6]))
redis.call('DEL', KEYS[1])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', '{most}', '*', 'deed', 'lock', 'about', ARGV[7],
  'level', level + 1, 'till', string.format('%.0f', now + lasts))
redis.call('PEXPIRE', KEYS[3], {stay})
return {lasts, level + 1}
""".replace("{most}", str(_MOST)).replace("{stay}", str(_STAY))
)

#: Keys: failures. Arguments: a user, whose failures from there are forgiven.
FORGIVEN = script("return redis.call('HDEL', KEYS[1], ARGV[1])")

#: Keys: failures, penalty. An operator lets the clients of a network try again.
UNLOCK = script("return redis.call('DEL', KEYS[1], KEYS[2])")

#: Keys: bucket. Arguments: bytes a second, the most bytes of the bucket, wanted bytes, node.
#: Answer: the bytes that are lent. If there are not enough, each node that has asked lately gets an equal
#: part.
LOAN = script(
    _TIME
    + """
local rate, most, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local fields, left, since, nodes = redis.call('HGETALL', KEYS[1]), most, micros, 1
for at = 1, #fields, 2 do
  local field, value = fields[at], tonumber(fields[at + 1])
  if field == 'left' then left = value
  elseif field == 'since' then since = value
  elseif field ~= 'n:' .. ARGV[4] then
    if now - value < 500 then nodes = nodes + 1 else redis.call('HDEL', KEYS[1], field) end
  end
end
left = math.min(left + math.max(micros - since, 0) / 1000000 * rate, most)
local lent = math.max(math.min(wanted, left / nodes), 0)
redis.call('HSET', KEYS[1], 'left', string.format('%.3f', left - lent),
  'since', string.format('%.0f', micros), 'n:' .. ARGV[4], string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.min(most / math.max(rate, 1), 3600) * 1000 + 2000))
return string.format('%.3f', lent)
"""
)
