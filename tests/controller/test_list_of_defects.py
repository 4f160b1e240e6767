"""The defects of the original controller, numbered, each with the tests of ours that would fail with the defect.

1 to 17 are marked in the description of the behaviour, 18 to 30 are in the list of its section 11.1, 31 to 36 were seen
in the original on a real control plane, and 37 and on stand there without a mark. The sections are of the description.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path
from typing import Final, NamedTuple

import pytest


class Defect(NamedTuple):
    number: int
    section: str
    text: str
    tests: tuple[str, ...]
    """Functions, after their files of this room without ``test_``, or the path of a file below the tests."""


DEFECTS: Final = [
    Defect(1, "2.5", "The address of a base read from its Node is that of the proxy of the kubelet's API.", (
        "nodes::test_a_base_is_read_from_its_node",
    )),
    Defect(2, "3.2", "The topic of batches is never unsubscribed.", (
        "defects_of_the_whole::test_3_2_all_topics_of_a_base_are_unsubscribed_once_nobody_asks_the_base",
    )),
    Defect(3, "3.4", "An empty list in the outcome of a batch ends the process.", (
        "mqtt::test_the_outcome_of_a_batch_has_the_list_asked_for_whatever_it_says",
    )),
    Defect(4, "3.5", "The outcome of a batch counts as the whole list of the base.", (
        "mqtt::test_the_outcome_of_a_batch_has_the_list_asked_for_whatever_it_says",
    )),
    Defect(5, "3.6", "After a restart of the broker the answers of bases are heard no more.", (
        "mqtt::test_all_subscriptions_are_renewed_after_a_restart_of_the_broker_amid_installs",
    )),
    Defect(6, "4.3", "A Node that the cache does not show yet ends the take-over for good.", (
        "defects::test_4_3_a_node_that_the_cache_shows_late_is_no_trouble",
    )),
    Defect(7, "4.9", "A base known from its Node counts as silent since 1970, and the Node is deleted.", (
        "defects::test_4_9_a_base_known_from_its_node_has_the_time_for_a_heartbeat",
    )),
    Defect(8, "5.3", "Pods bound before their Node exists, or while the base is unreachable, are never seen again.", (
        "defects::test_5_3_pods_bound_before_their_node_exists_are_installed",
    )),
    Defect(9, "5.4", "No Event is ever written.", (
        "on_cluster::test_a_failed_install_is_an_event_and_the_reason_of_the_pod",
    )),
    Defect(10, "5.7", "Statuses are compared by the second of the minute, and told or dropped by luck.", (
        "defects::test_5_7_a_change_at_the_same_second_of_another_minute_is_told",
    )),
    Defect(11, "5.7", "After an install over HTTP the former status overwrites the new one.", (
        "defects::test_5_7_the_answer_of_an_install_is_told_at_once_and_never_taken_back",
    )),
    Defect(12, "5.8", "The reply to the uninstall of a stray is itself a stray: an endless loop.", (
        "defects::test_5_8_a_stray_whose_uninstall_fails_is_tried_once_a_minute",
    )),
    Defect(13, "5.11", "The record of a start that ran into a timeout tells a success.", (
        "defects::test_5_11_an_install_without_an_answer_is_told_as_such_until_the_base_says_more",
    )),
    Defect(14, "6.3", "A node affinity with an empty list of values ends the process.", (
        "peers::test_the_cluster_of_a_deployment",
    )),
    Defect(15, "6.4", "Deployments of any env follow the Nodes.", (
        "defects_of_the_whole::test_6_4_bases_of_another_env_are_not_counted_and_deployments_of_another_env_are_left_alone",
    )),
    Defect(16, "6.4", "Nodes of any env are counted.", (
        "defects_of_the_whole::test_6_4_bases_of_another_env_are_not_counted_and_deployments_of_another_env_are_left_alone",
    )),
    Defect(17, "7.1", "Everybody who reaches the kubelet's API reads logs.", (
        "controller/kubelet/test_api.py::test_a_caller_needs_a_name_and_a_right",
        "controller/kubelet/test_api.py::test_nobody_is_let_in_while_the_api_server_cannot_be_asked",
    )),
    Defect(18, "11.1 (1)", "A base that accepts and never answers blocks the statuses of all bases.", (
        "defects::test_11_1_1_a_base_that_hangs_holds_up_no_other",
    )),
    Defect(19, "11.1 (2)", "A text unfit for labels, or a second take-over, ends the process.", (
        "defects::test_11_1_2_names_that_are_no_labels_become_nodes_all_the_same",
        "leases::test_4_8_a_controller_that_was_away_for_long_renews_its_own_lease",
    )),
    Defect(20, "11.1 (3)", "A Node deleted by hand never comes back.", (
        "defects::test_11_1_3_a_node_deleted_by_hand_comes_back_and_keeps_its_modules",
    )),
    Defect(21, "11.1 (4)", "Edges are acted upon: nothing is installed again, and a failure is final.", (
        "defects::test_5_5_a_module_that_a_base_has_lost_is_installed_again",
        "plan::test_a_failed_install_is_tried_again_after_a_pause_that_grows",
        "plan::test_what_should_run_runs_and_nothing_else",
    )),
    Defect(22, "11.1 (5)", "Retries without a limit pin workers; a failing container blocks the others of its Pod.", (
        "defects::test_11_1_5_a_container_that_fails_does_not_block_the_others",
        "tunnels::test_a_base_that_never_answers_holds_nobody_up",
        "steward::test_an_install_that_lasts_holds_up_nothing_else",
    )),
    Defect(23, "11.1 (6)", "Messages are worked on one after the other in the one stream, and wait for each other.", (
        "mqtt::test_ten_thousand_heartbeats_are_heard_amid_commands",
        "mqtt::test_a_base_without_an_answer_holds_nobody_up_for_long",
    )),
    Defect(24, "11.1 (7)", "Fields are shared without a lock, and a part that has ended blocks the others.", (
        "queue::test_workers_work_on_different_keys_at_once_and_never_on_one",
        "defects_of_the_whole::test_11_1_7_a_mistake_in_a_part_of_the_controller_ends_the_process",
    )),
    Defect(25, "11.1 (8)", "Errors are swallowed: of listening, of lists at the start.", (
        "defects_of_the_whole::test_11_1_8_an_address_that_is_taken_ends_the_process_and_is_named",
        "defects_of_the_whole::test_11_1_8_lists_that_fail_at_the_start_are_told_and_waited_for",
    )),
    Defect(26, "11.1 (9)", "There is nothing between Ready and deleted for a silent base.", (
        "steward::test_a_silent_base_is_unknown_and_then_gone",
    )),
    Defect(27, "11.1 (10)", "Every payload is logged.", (
        "defects_of_the_whole::test_11_1_10_payloads_are_not_logged",
    )),
    Defect(28, "11.1 (11)", "Everybody is heard, and certificates are not checked.", (
        "tunnels::test_a_token_keeps_strangers_out",
        "defects_of_the_whole::test_11_1_11_an_arklet_with_a_certificate_of_somebody_else_gets_no_word",
    )),
    Defect(29, "11.1 (12)", "Each change of a Node recounts and patches, without a check for conflicts.", (
        "defects_of_the_whole::test_11_1_12_many_bases_at_once_are_one_patch_and_a_conflict_is_no_error",
    )),
    Defect(30, "11.1 (13)", "All Pods, Nodes, Leases and Deployments of the cluster are followed.", (
        "defects_of_the_whole::test_11_1_13_all_is_asked_of_the_api_server_by_labels",
    )),
    Defect(31, "seen", "A base restarted empty is never refilled.", (
        "steward::test_a_base_that_restarts_empty_under_its_identity_is_filled_again_at_once",
        "sharding::test_a_base_restarted_empty_is_refilled_though_another_controller_hears_the_restart",
    )),
    Defect(32, "seen", "One hanging base stops all Pods.", (
        "defects::test_11_1_1_a_base_that_hangs_holds_up_no_other",
        "steward::test_a_base_with_heartbeats_and_a_hanging_arklet_keeps_no_pod_ready",
    )),
    Defect(33, "seen", "1.0+build as the version of a base ends the process.", (
        "defects::test_11_1_2_names_that_are_no_labels_become_nodes_all_the_same",
    )),
    Defect(34, "seen", "A stray whose uninstall fails is retried 135,298 times in a minute.", (
        "defects::test_5_8_a_stray_whose_uninstall_fails_is_tried_once_a_minute",
        "plan::test_a_stray_that_does_not_go_is_tried_once_a_minute",
    )),
    Defect(35, "seen", "After kill -9 of the controller its Pods stay unready for minutes.", (
        "defects::test_a_killed_controller_that_starts_again_installs_nothing_twice_and_leaves_pods_ready",
        "balance::test_the_nodes_of_a_killed_controller_are_taken_within_the_lease_time_and_alike",
    )),
    Defect(36, "seen", "A Node deleted by hand never comes back.", (
        "steward::test_a_node_deleted_by_hand_comes_back",
    )),
    Defect(37, "1.1", "Numbers that are none become the default, or end the process, silently.", (
        "defects_of_the_whole::test_1_1_an_empty_port_or_a_wrong_number_is_refused_and_named",
    )),
    Defect(38, "4.2", "Later news of a base, such as another address, never reach the Node.", (
        "defects::test_4_2_later_news_of_a_base_reach_the_node",
    )),
    Defect(39, "4.8", "A lapsed Lease of another holder is never taken over.", (
        "leases::test_4_8_the_lapsed_lease_of_a_dead_controller_is_taken_over",
    )),
    Defect(40, "4.8", "Each replica makes the Node of a dead base once more.", (
        "fleet::test_a_node_deleted_by_the_leader_is_not_made_again_by_others_who_heard_the_base_before",
        "fleet::test_nobody_takes_the_lease_of_a_dead_base",
    )),
    Defect(41, "4.9", "Every module is installed again after a restart of the controller.", (
        "steward::test_a_controller_that_starts_anew_says_nothing_before_the_base_has_told",
    )),
    Defect(42, "5.2", "A container without .jar in the image is installed, and never counted.", (
        "status::test_a_pod_runs_with_its_module",
    )),
    Defect(43, "5.6", "An image changed in place leaves the Pod without a module.", (
        "defects::test_5_6_another_image_in_place_replaces_the_module",
    )),
    Defect(44, "5.7", "Conditions have no time of transition, so that minReadySeconds never pass.", (
        "status::test_conditions_keep_the_time_of_their_last_change",
    )),
    Defect(45, "5.7", "A status is written whole, and the members of others are lost.", (
        "status::test_the_conditions_of_others_stay",
    )),
    Defect(46, "5.9", "In a rolling update the new Pod may be told ready before the old one is told unready.", (
        "steward::test_in_a_rolling_update_the_old_pod_is_unready_before_the_new_one_is_ready",
    )),
    Defect(47, "5.10", "A deleted Pod stays for the whole grace although the module has left.", (
        "plan::test_a_pod_has_left_once_its_modules_have",
    )),
    Defect(48, "1.1", "With both tunnels at once, one is half dead.", (
        "ways::test_two_tunnels_at_once_write_the_node_once_and_keep_the_base_alive",
        "ways::test_commands_go_by_the_tunnel_of_the_base_and_visits_to_the_module",
    )),
    Defect(49, "3.1", "A broker that is away at the start ends the process.", (
        "mqtt::test_a_broker_that_is_away_at_the_start_is_tried_again",
    )),
    Defect(50, "3.1", "The certificate of the broker is not checked.", (
        "mqtt::test_over_tls_the_controller_shows_its_certificate_and_checks_the_broker",
    )),
    Defect(51, "3.2", "Commands are kept by the broker, and carried out again by a base that starts.", (
        "mqtt::test_commands_kept_from_an_earlier_controller_are_cleared_and_others_stay",
    )),
    Defect(52, "3.3", "A base with a clock ten seconds behind is invisible.", (
        "mqtt::test_a_base_with_another_time_is_heard_and_the_log_says_so_once",
    )),
    Defect(53, "3.6", "A command to a base that is not subscribed is lost for good.", (
        "mqtt::test_a_change_lost_on_the_way_to_the_base_is_sent_again",
    )),
]  # fmt: skip


@functools.cache
def functions(file: str) -> frozenset[str]:
    """The names of the tests in a file."""
    path = Path(__file__).parents[1] / (file if "/" in file else f"controller/test_{file}.py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: f"{defect.number:02}")
def test_a_defect_has_its_tests(defect: Defect) -> None:
    assert defect.tests
    for test in defect.tests:
        file, _, name = test.partition("::")
        assert name in functions(file), test


def test_all_numbers_are_there() -> None:
    numbers = [defect.number for defect in DEFECTS]
    assert numbers == [*range(1, numbers[-1] + 1)]
