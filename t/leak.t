#!/usr/bin/perl

# Nothing is left behind by webhooks that meet faults, senders who go away, and
# creations: in one process, whose end valgrind (t/run --valgrind t/leak.t) or
# the sanitizer of the static build watches.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use IoTHubTest;
use IoTHubTest::Faults qw(share_out wire_faults word_faults);

my $valgrind = $ENV{IOTHUB_TEST_VALGRIND};
my $COUNT = $valgrind ? 5000 : 500;
my $DEVICES = $COUNT / 5;

# of the calls
my $SHARE = 0.2;

local $ENV{VALGRIND_OPTS} = join ' ', $ENV{VALGRIND_OPTS} // (),
    '--leak-check=full', map { "--$_" } 'show-leak-kinds=definite',
    'errors-for-leak-kinds=definite', 'num-callers=30',
    "suppressions=$FindBin::Bin/lib/valgrind.supp";

my $t = IoTHubTest->new(crit => 0);
my $hub = $t->hub(faults => [share_out($SHARE, { op => 'any' },
                                       word_faults(), wire_faults())]);

# half of them are there
$hub->add([map { "device-$_" } grep { $_ % 2 } 0 .. $DEVICES - 1]);

(my $first = $hub->block('register first rate=off;')) =~ s/contoso/first/;

my $missing = $hub->block('register missing rate=off;'
                          . ' proxy_read_timeout 500ms;');

$t->nginx("$first\n$missing\n" . <<'CONF', main => 'master_process off;');

    iothub_secret off;

    server {
        listen 127.0.0.1:%%PORT_8080%%;
        http2_max_requests 100;

        iothub_deadline 1500ms;

        location /missing { iothub_pass contoso; }
        location /first { iothub_pass first; }

        location /all {
            iothub_pass $arg_hub;
            iothub_event $arg_name;
            iothub_property site "$arg_site";
            iothub_message '{"d":$iothub_data}';
        }
    }

CONF

my $done = 0;
my @uris = ('/missing', '/first', '/all?hub=contoso&site=a%20b&name=x');

my @answers = $t->parallel([map { [POST => $uris[$_ % @uris],
    body => "event=temp&coreid=device-@{[$_ % $DEVICES]}&data=$_",
    headers => { 'Content-Type' => 'application/x-www-form-urlencoded' }] }
    1 .. $COUNT], 32, keepalive => 1, timeout => 60);

my %words;

for (@answers) {
    my ($word) = $_->{status} == 204 ? 'delivered'
        : $_->{body} =~ /"code":"(\w+)"/ ? $1 : "status $_->{status}";

    $words{$word}++;
}

note(join ', ', map { "$_ $words{$_}" } sort keys %words);

my @calls = $hub->journal(brief => 1);
my $faults = grep { defined $_->{fault} } @calls;

note(scalar(@calls) . " hub calls, $faults with a fault");

is((grep { $_->{status} } @answers), $COUNT, "$COUNT answers");
cmp_ok($words{delivered} // 0, '>', $COUNT / 2, 'most are delivered');
cmp_ok($faults, '>', @calls * $SHARE / 3, 'faults were thrown');

# ---- senders who go away while the hub thinks

$hub->faults([{ op => 'any', delay => 300 }]);

for my $n (1 .. $COUNT / 50) {
    my $body = "event=temp&coreid=gone-$n&data=1";

    $t->http("POST /first HTTP/1.1\r\nHost: x\r\nContent-Length: "
             . length($body) . "\r\n\r\n$body", abort => 1);
}

ok($hub->wait_for('send', 1, 30, device => 'gone-' . $COUNT / 50),
   'the last of those whose sender went away');

$t->done;
