#!/usr/bin/perl

# A worker takes no more memory after many webhooks and faults than after some:
# 5,000 of them, or 200,000 with t/run --long t/memory.t.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use IoTHubTest;

my $t = IoTHubTest->new;

plan skip_all => 'what is freed is kept by the sanitizers and by valgrind'
    if $ENV{IOTHUB_TEST_VALGRIND} || $t->is_static;

my $long = $ENV{IOTHUB_TEST_LONG};
my $COUNT = $long ? 200_000 : 5000;   # after $WARM others
my $WARM = $long ? 20_000 : 3000;
my $BATCH = 1000;
my $CONCURRENCY = 64;

# KB that a worker may grow
my $GROWTH = 1024;


# ---- a hub that is another nginx: much faster than the simulator

my $hub = IoTHubTest->new;

# more than is kept of an answer
my $large = 'x' x 3000;

$hub->nginx(<<"SERVER" . <<'CONF', no_module => 1, error_level => 'crit');

    server {
        listen 127.0.0.1:%%PORT_large%%;
        return 500 '$large';
    }
SERVER

    access_log off;
    keepalive_requests 500;

    split_clients $request_id $fault {
        2%    503;
        1%    500;
        1%    retry;
        2%    close;
        2%    missing;
        0.5%  slow;
        0.5%  large;
        0.5%  refused;
        0.1%  forbidden;
        *     none;
    }

    server {
        listen 127.0.0.1:%%PORT_8080%%;
        default_type application/json;

        location /devices/ {
            return 200 '{"deviceId":"x","status":"enabled"}';
        }

        location ~ /messages/events$ {
            if ($fault = none) { return 204; }
            if ($fault = 503) { return 503; }
            if ($fault = close) { return 444; }
            rewrite ^ /$fault last;
        }

        location = /500 {
            return 500 '{"Message":"ErrorCode:ServerError;x"}';
        }

        location = /retry {
            add_header Retry-After 0 always;
            return 503;
        }

        location = /missing {
            return 404 '{"Message":"ErrorCode:DeviceNotFound;x"}';
        }

        location = /slow {
            limit_rate 1;
            return 200 '{}';
        }

        location = /large {
            proxy_http_version 1.1;
            proxy_pass http://127.0.0.1:%%PORT_large%%;
        }

        location = /refused { return 413; }

        location = /forbidden {
            return 403 '{"Message":"ErrorCode:DeviceDisabled;x"}';
        }
    }

CONF

my $port = $hub->port;

$t->write_file('keys', 'A' x 43 . "=\n");

$t->nginx(<<"HUB" . <<'CONF', error_level => 'crit');

    iothub contoso {
        hostname contoso.azure-devices.net;
        address 127.0.0.1:$port;
        policy gateway;
        key_file keys;
        tls off;
        zone 1m;
        register missing rate=off;
        proxy_read_timeout 200ms;
    }
HUB

    iothub_secret off;
    keepalive_requests 100;

    log_format all '$iothub_device_id $iothub_result $iothub_hub_status'
                   ' $iothub_delivery_time $iothub_message_id';
    access_log /dev/null all;

    server {
        # shared out by the kernel: both workers get their part
        listen 127.0.0.1:%%PORT_8080%% reuseport;

        location / {
            iothub_deadline 500ms;
            iothub_property site "$arg_site";
            iothub_pass contoso;
        }
    }

CONF

my (%words, $sent);

sub deliver {
    my ($count) = @_;

    for (1 .. $count / $BATCH) {
        my @answers = $t->parallel([map { $sent++;
            [POST => '/?site=a', body => "event=temp&coreid=d-"
                 . $sent % 10_000 . "&event_id=w-$sent&data="
                 . 'x' x ($sent % 100 ? 20 : 5000),
             headers => { 'Content-Type' =>
                          'application/x-www-form-urlencoded' }] }
            1 .. $BATCH], $CONCURRENCY, keepalive => 1);

        for (@answers) {
            my ($word) = $_->{status} == 204 ? 'delivered'
                : $_->{body} =~ /"code":"(\w+)"/ ? $1 : $_->{status};

            $words{$word}++;
        }
    }
}


# KB of each worker, without what it shares with the others

sub memory {
    return map { $t->_slurp("/proc/$_/status") =~ /^RssAnon:\s+(\d+)/m }
        $t->worker_pids;
}

deliver($WARM);

my @before = memory();

deliver($COUNT);

my @after = memory();

note(join ', ', map { "$_ $words{$_}" } sort keys %words);
note("worker $_: $before[$_] KB after $WARM webhooks, $after[$_] KB after "
     . ($WARM + $COUNT)) for 0 .. $#before;

is(scalar @after, 2, 'two workers');
cmp_ok($words{delivered} // 0, '>', $COUNT * 0.9, 'most are delivered');
cmp_ok(scalar(keys %words), '>=', 3, 'some meet faults');
cmp_ok($after[$_] - $before[$_], '<', $GROWTH, "worker $_ does not grow")
    for 0, 1;

$t->done;
