"""The view Chat: a conversation with an instruction-tuned run, and a reason where there is none."""

import pytest
from browser import Site
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser, pytest.mark.long]


def test_a_question_gets_an_answer_and_the_conversation_goes_on(open_page, site: Site) -> None:
    page = open_page(site)
    requests = []
    page.on("request", lambda request: requests.append(request.post_data_json) if "/chat" in request.url else None)
    page.get_by_role("tab", name="Chat").click()
    expect(page.locator("#chat-run option")).to_have_text(["answers"])
    for count in (1, 2):
        page.get_by_label("Your message").fill(f"q{count}")
        page.get_by_label("Your message").press("Enter")
        expect(page.locator(".turn-you")).to_have_count(count)
        expect(page.locator("#chat-message")).to_have_text("The answer is complete.")
        expect(page.locator(".turn-model .text").nth(count - 1)).not_to_have_text("")
    roles = [[message["role"] for message in request["messages"]] for request in requests]
    assert roles == [["user"], ["user", "assistant", "user"]]
    assert requests[1]["messages"][1]["content"] == page.locator(".turn-model .text").first.text_content()
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator(".turn")).to_have_count(0)


def test_without_a_chat_run_the_page_says_how_to_make_one(open_page, small_site: Site) -> None:
    page = open_page(small_site)
    page.get_by_role("tab", name="Chat").click()
    expect(page.locator("#chat-reason")).to_contain_text("minigpt finetune RUN --task reverse")
    expect(page.get_by_label("Your message")).to_be_hidden()
