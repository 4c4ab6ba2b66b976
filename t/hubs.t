#!/usr/bin/perl

# Several hubs side by side, chosen by name or by a variable.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use Test::More;
use IoTHubTest;

my $t = IoTHubTest->new;
my @names = qw(contoso fabrikam registry.fabrikam);
my %hub = map { $_ => $t->hub(name => $_, policy => "policy-$_",
                              tls => $_ eq 'fabrikam' ? 1 : 0) } @names;

$t->nginx(join("\n", map { $hub{$_}->block } @names[0, 2]) . <<'CONF');

    iothub_secret off;

    log_format result '$uri "$iothub_hub" $iothub_result';
    access_log %%TESTDIR%%/access.log result;

    map $arg_site $by_site {
        oslo    contoso;
        lima    fabrikam;
        quito   closed;
        default "";
    }

    server {
        listen 127.0.0.1:%%PORT_8080%%;

        location /contoso { iothub_pass contoso; }
        location /registry.fabrikam { iothub_pass registry.fabrikam; }
        location = /fabrikam { iothub_pass fabrikam; }
        location /site { iothub_pass $by_site; }
        location /event { iothub_pass $iothub_event; }
        location /prefix { iothub_pass con$arg_rest; }

        location /if {
            if ($arg_site = lima) {
                iothub_pass fabrikam;
            }

            iothub_pass contoso;
        }

        location /inherits {
            if ($arg_site) {
                add_header X-Site $arg_site;
            }

            iothub_pass contoso;
        }

        location = /status { iothub_status; }

        location /method {
            limit_except POST {
                iothub_pass fabrikam;
            }

            iothub_pass contoso;
        }
    }

    # declared after its use

    %%IOTHUB_fabrikam%%

CONF

my $n = 0;


# goes_to(NAME, URI, HUB): a new device's webhook; the hubs' journals tell
# where it went, and that no other hub was asked

sub goes_to {
    my ($name, $uri, $want, %o) = @_;

    my $device = 'e' . ++$n;
    my $event = $o{event} // 'temp';
    my $method = $o{method} // 'POST';
    my $answer = $t->request($method => $uri,
        headers => { 'Content-Type' => 'application/x-www-form-urlencoded' },
        body => "event=$event&coreid=$device&data=1");

    my %asked = map { $_ => scalar $hub{$_}->journal(device => $device) }
        @names;
    my @got = grep { $hub{$_}->messages(device => $device) } @names;

    is($answer->{status}, 204, "$name: delivered");
    is_deeply([$want, [$want], 3],
              [@got == 1 ? $got[0] : '', [grep { $asked{$_} } @names],
               $asked{$want}], "$name: to $want alone");
}


goes_to("iothub_pass $_", "/$_", $_) for @names;
goes_to('by a map', '/site?site=oslo', 'contoso');
goes_to('by a map to another', '/site?site=lima', 'fabrikam');
goes_to('by a field of the webhook', '/event', 'fabrikam',
        event => 'fabrikam');
goes_to('by a text with a variable', '/prefix?rest=toso', 'contoso');
goes_to('in an if that is true', '/if?site=lima', 'fabrikam');
goes_to('in an if that is false', '/if', 'contoso');
goes_to('in an if without one', '/inherits?site=lima', 'contoso');
goes_to('outside of limit_except', '/method', 'contoso');
goes_to('inside of limit_except', '/method', 'fabrikam', method => 'PUT');

is((grep { $_->{token}{skn} ne 'policy-fabrikam' } $hub{fabrikam}->journal),
   0, 'each with its own policy');


# what fails before a hub is chosen, is that of the location

for my $uri ('/inherits', '/inherits?site=lima') {
    is($t->post($uri, '{', type => 'application/json')->{status}, 400,
       "$uri: malformed");
}

my $status = decode_json($t->get('/status?hub=contoso')->{body});

is($status->{hubs}{contoso}{webhooks}{particle}{malformed}, 2,
   'each is counted for the hub, in an if without an iothub_pass, too');


# ---- no such hub

sub misconfigured {
    my ($name, $uri, %o) = @_;

    my $answer = $t->post($uri, 'data=1&coreid=e0&event='
                                . ($o{event} // 'temp'));

    is($answer->{status}, 503, "$name: 503");
    is(eval { decode_json($answer->{body})->{code} }, 'misconfigured',
       "$name: misconfigured");
    ok($answer->{headers}{'retry-after'}, "$name: Retry-After");
    unlike($answer->{body}, qr/intruder/, "$name: the name is not told");
}

$_->forget for values %hub;

misconfigured('an unknown name', '/site?site=quito');
misconfigured('an empty name', '/site?site=nowhere');
misconfigured('a name of the webhook', '/event', event => 'intruder');
misconfigured('a name in another case', '/event', event => 'CONTOSO');
misconfigured('a longer name', '/event', event => 'contoso2');
misconfigured('a part of a name', '/prefix');

is_deeply([map { $_->journal } values %hub], [], 'no hub was asked');

is(scalar $t->log_lines(qr/\[error\].*\ iothub\ event\ not\ delivered,.*
    step:\ webhook,\ result:\ misconfigured,.*:\ iothub_pass\ names\ a\ hub
    \ that\ is\ not\ declared/x), 6, 'an error line each');

$t->wait_for_log(qr/misconfigured/, count => 6, file => 'access.log');

is(scalar $t->log_lines(qr/ "-" misconfigured$/, 'access.log'), 6,
   '$iothub_hub is empty then');
is(scalar $t->log_lines(qr{^/fabrikam "fabrikam" delivered$}, 'access.log'),
   1, 'and names the hub otherwise');

$t->done;
