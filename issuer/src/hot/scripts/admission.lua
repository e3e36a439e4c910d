-- Whether a request may go on: HotState::admit, issuer/src/hot/mod.rs. Limits have room as Counts::has_room says, issuer/src/domain/limit.rs.
-- KEYS: of a client from somewhere its lockout and its failures; then for each limit its counter of this minute and that of the minute before.
-- ARGV: milliseconds since the minute began; whether there is a client; whether it has proved itself; whether the first limit is its address's, which
-- counts whatever comes after; then the limits.
-- Answer: 0 admitted, 1 no room for the address, 2 locked out, 3 no room; for how many milliseconds it is still locked out; then what the counters said.
local elapsed = tonumber(ARGV[1])
local clients, addresses = 2 * tonumber(ARGV[2]), tonumber(ARGV[4])
local limits = #ARGV - 4
local answer = {0, 0}
if limits > 0 then
    local counters = redis.call('MGET', unpack(KEYS, clients + 1))
    for i = 1, 2 * limits do
        answer[i + 2] = tonumber(counters[i]) or 0
    end
end

local function has_room(first, last)
    for i = first, last do
        local current, previous = answer[2 * i + 1], answer[2 * i + 2]
        if previous * (60000 - elapsed) + (current + 1) * 60000 > tonumber(ARGV[i + 4]) * 60000 then
            return false
        end
    end
    return true
end

local function count(first, last)
    for i = first, last do
        local counter = KEYS[clients + 2 * i - 1]
        if redis.call('INCR', counter) == 1 then
            redis.call('PEXPIRE', counter, 120000) -- this minute and the next
        end
    end
end

if not has_room(1, addresses) then
    answer[1] = 1
    return answer
end
count(1, addresses)
-- Mostly there is neither, which one call tells.
if clients > 0 and redis.call('EXISTS', KEYS[1], KEYS[2]) > 0 then
    local left = redis.call('PTTL', KEYS[1])
    if left > 0 then
        answer[1], answer[2] = 2, left
        return answer
    end
    if ARGV[3] == '1' then
        redis.call('DEL', KEYS[2])
    end
end
if not has_room(addresses + 1, limits) then
    answer[1] = 3
    return answer
end
count(addresses + 1, limits)
return answer
