#!/usr/bin/perl

# Traps of subrequests and of the proxy that no other test springs: see also
# isolation.t (what http{} sets), answers.t (error_page, answers that are
# truncated or large, the deadline), abort.t (senders that go), retry.t
# (connections that die), particle.t (bodies in pieces) and message.t
# (variables that were read before the body).

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use IoTHubTest;
use IoTHubTest::Recorder;

my $t = IoTHubTest->new;
my $hub = $t->hub(tls => 0);
my $target = IoTHubTest::Recorder->start($t, 'target');

$t->nginx($hub->block('register first rate=off;')
          . <<'CONF' =~ s/%%TARGET%%/$target->port/er, workers => 1);

    iothub_secret off;

    log_format both '$iothub_device_id $iothub_hub_status $upstream_status';
    access_log %%TESTDIR%%/access.log both;

    upstream second {
        server 127.0.0.1:%%PORT_8081%% max_fails=0;
        server 127.0.0.1:%%TARGET%% max_fails=0;
    }

    server {
        listen 127.0.0.1:%%PORT_8081%%;
        return 444;
    }

    server {
        listen 127.0.0.1:%%PORT_8080%%;

        location / { iothub_pass contoso; }

        location /mirrored {
            mirror /copy;
            return 200 "target\n";
        }

        location /behind {
            mirror /copy;
            proxy_pass http://127.0.0.1:%%PORT_8080%%/target;
        }

        # its body is sent a second time, when the copy has been read

        location /large {
            client_body_buffer_size 512k;
            client_body_in_single_buffer on;
            mirror /copy;
            proxy_next_upstream error non_idempotent;
            proxy_pass http://second;
        }

        location = /copy { internal; iothub_pass contoso; }
        location = /target { return 200 "target\n"; }
    }

CONF

my $form = 'application/x-www-form-urlencoded';


subtest 'an answer is read to its end: its connection is kept' => sub {
    my $before = $hub->connections->{accepted};

    $t->post('/', "coreid=new-$_&event=e", 'Content-Type' => $form)
        for 1 .. 100;

    is(scalar(my @put = $hub->journal(op => 'create', brief => 1)), 100,
       '100 identities');
    is(scalar(my @sent = $hub->messages), 100, '100 messages');
    cmp_ok($hub->connections->{accepted} - $before, '<=', 4,
           'over a few connections');
};


subtest 'a body is sent again from its start' => sub {
    my $data = join '', map { chr(97 + $_ % 26) } 1 .. 50_000;

    $hub->add('again');

    for my $n (1 .. 5) {
        $hub->control('DELETE', 'connections');

        is($t->post('/', "coreid=again&event=e&data=$data",
                    'Content-Type' => $form)->{status}, 204,
           "over connections that are gone, $n");
    }

    $hub->faults([{ op => 'send', device => 'again', status => 500,
                    times => 2 }]);

    is($t->post('/', "coreid=again&event=e&data=$data",
                'Content-Type' => $form)->{status}, 204, 'after faults');

    my @messages = grep { $_->{device} eq 'again' } $hub->messages;

    is(scalar(@messages), 6, 'each once');
    is(scalar(grep { $_->{body} =~ /^\{"data":"$data","device_id":"again"/ }
              @messages), 6, 'each whole');
};


subtest 'variables of the delivery, not of nginx\'s upstream' => sub {
    ok($t->wait_for_log(qr/^again 500, 500, 204 -$/, file => 'access.log'),
       'all of its calls');
};


subtest 'from a subrequest of another module' => sub {
    my $answer = $t->post('/behind', 'coreid=mirror&event=e',
                          'Content-Type' => $form);

    is($answer->{status}, 200, 'the target answers');
    is($answer->{body}, "target\n", 'in its own words');
    is($hub->wait_for('send', 1, 5000, device => 'mirror'), 1, 'delivered');
};


subtest 'a body that another module is sending meanwhile' => sub {
    my $data = join '-', 1 .. 30_000;
    my $body = "coreid=mirror&event=e&data=$data";
    my $head = "POST /large HTTP/1.1\r\nHost: localhost\r\nConnection: close"
        . "\r\nContent-Type: $form\r\nContent-Length: " . length($body)
        . "\r\n\r\n";

    $hub->forget;
    $t->http([$head . substr($body, 0, 100),
              map { substr $body, 100 + $_ * 60_000, 60_000 }
              0 .. length($body) / 60_000]);

    ok($target->take->{body} eq $body, 'the target has all of it');
    is($hub->wait_for('send', 1, 5000, device => 'mirror'), 1, 'delivered');
    ok(index(($hub->messages)[0]{body}, qq("data":"$data")) >= 0,
       'and all of it');
};


subtest 'a graceful end waits for a delivery that waits' => sub {
    $hub->add('late');
    $hub->faults([{ op => 'send', device => 'late', status => 503,
                    retry_after => '1', times => 1 }]);

    my $pid = fork() // die $!;

    if ($pid == 0) {
        my $answer = $t->post('/', 'coreid=late&event=e',
                              'Content-Type' => $form);

        require POSIX;
        POSIX::_exit($answer->{status} == 204 ? 0 : 1);
    }

    $hub->wait_for('send', 1, 5000, device => 'late');
    $t->stop;
    waitpid $pid, 0;

    is($?, 0, 'answered 204');
    is(scalar(grep { $_->{device} eq 'late' } $hub->messages), 1,
       'and delivered');
};

$t->done;
