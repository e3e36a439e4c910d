-- Counts a request against several limits, or against none where one has no room: issuer/src/domain/limit.rs, Counts::has_room.
-- KEYS: for each limit its counter of this minute and that of the minute before; then, for a client that has just proved itself, its lockout.
-- ARGV: milliseconds since the minute began, then the limits.
-- Answer: whether it was counted, then what the counters said before; or 2 and for how many milliseconds the client is still locked out.
local elapsed = tonumber(ARGV[1])
local limits = #ARGV - 1
if #KEYS > 2 * limits then
    local left = redis.call('PTTL', KEYS[#KEYS])
    if left > 0 then
        return {2, left}
    end
end
local answer, room = {1}, true
for i = 1, 2 * limits, 2 do
    local current = tonumber(redis.call('GET', KEYS[i])) or 0
    local previous = tonumber(redis.call('GET', KEYS[i + 1])) or 0
    local limit = tonumber(ARGV[(i + 3) / 2])
    if previous * (60000 - elapsed) + (current + 1) * 60000 > limit * 60000 then
        room = false
    end
    answer[i + 1] = current
    answer[i + 2] = previous
end
if not room then
    answer[1] = 0
    return answer
end
for i = 1, 2 * limits, 2 do
    redis.call('INCR', KEYS[i])
    -- This minute and the next.
    redis.call('PEXPIRE', KEYS[i], 120000)
end
return answer
