-- wrk's webhooks: Particle's JSON.  Arguments: the number of devices, 0 for a
-- new one each time; the first new device; bytes of data (4)

local head = "POST /hook HTTP/1.1\r\nHost: localhost\r\n"
    .. "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
local json = '{"event":"temp","data":"%s",'
    .. '"published_at":"2026-01-01T00:00:00.000Z","coreid":"%016x%08x"}'

local devices, first, data, ready, n = 0, 0, "21.5", {}, 0

local function webhook(device)
    local body = json:format(data, first, device)

    return head:format(#body, body)
end

function init(arguments)
    devices = tonumber(arguments[1])
    first = tonumber(arguments[2])
    data = ("x"):rep(tonumber(arguments[3] or 4))

    for device = 1, devices do
        ready[device] = webhook(device)
    end
end

function request()
    n = n + 1

    if devices == 0 then
        return webhook(n)
    end

    return ready[n % devices + 1]
end

function done(summary, latency)
    local e = summary.errors

    io.write(("RESULT %d %d %d %d\n"):format(summary.requests,
        latency:percentile(50), latency:percentile(99),
        e.status + e.connect + e.read + e.write + e.timeout))
end
